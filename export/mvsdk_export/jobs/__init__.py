"""The engine: jobs that run once, each in a process of its own, and are found again by content."""
