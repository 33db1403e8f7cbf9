"""Training: one loop for both stages, with its optimizer, checkpoints and reports."""
