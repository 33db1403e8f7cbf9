"""Real processes on this machine: what one does, two and four do together."""
