"""From parameters to pictures: sampling, filtering of logits, guidance."""
