"""Cases of clip.json: tiny graphs, bundles of them, and what is asked of these."""
