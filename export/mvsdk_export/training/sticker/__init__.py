"""Training of the text-to-video model of this SDK."""
