"""Models whose manifests are golden: the usual tasks, and one for each kind of system."""
