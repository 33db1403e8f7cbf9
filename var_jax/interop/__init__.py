"""The reference implementation's checkpoints: import and export of its names and layouts."""
