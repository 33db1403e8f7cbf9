"""From bytes to batches: reading pictures and what is done to them before a model sees them."""
