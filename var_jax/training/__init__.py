"""Training: one loop for both stages, its optimizer, its checkpoints and what it reports."""
