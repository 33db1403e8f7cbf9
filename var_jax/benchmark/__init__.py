"""Measurements of speed and of parity, one file per question."""
