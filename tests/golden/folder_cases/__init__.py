"""Cases of folders.json: bundles on disk, what is done to them, and what is asked of them."""
