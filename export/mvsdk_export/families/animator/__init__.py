"""animator: a picture put in motion, the SDK's own small model."""
