"""The reference implementation's checkpoints: its names and layouts, both ways."""
