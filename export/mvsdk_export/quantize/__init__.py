"""Quantisation: schemes as data, calibration on the few-step trajectory, QDQ graphs."""
