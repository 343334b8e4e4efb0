"""Core AI assets for iPhones from iOS 27 on."""
