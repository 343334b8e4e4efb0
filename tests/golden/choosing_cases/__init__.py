"""Cases of choosing.json: devices, bundles, and the set that each device runs."""
