"""What an export is asked for, what it will cost, and whether it can end well."""
