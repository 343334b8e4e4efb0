"""Targets: what knows a platform. Specs are light; the modules beside them do the work."""
