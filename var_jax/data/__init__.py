"""Data: from bytes to batches, reading pictures and preparing them for a model."""
