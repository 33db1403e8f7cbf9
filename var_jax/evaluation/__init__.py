"""From pictures to figures."""
