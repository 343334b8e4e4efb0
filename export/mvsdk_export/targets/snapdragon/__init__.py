"""Context binaries for the HTP of Snapdragon chips."""
