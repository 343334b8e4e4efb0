"""Lowering to Core ML: from a network to `.mlpackage` folders, and what is done to those."""
