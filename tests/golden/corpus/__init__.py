"""What manifests readers refuse, with rule and place, and what they take though it is odd."""
