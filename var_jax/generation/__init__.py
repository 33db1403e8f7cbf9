"""From parameters to pictures: sampling, guidance, editing."""
