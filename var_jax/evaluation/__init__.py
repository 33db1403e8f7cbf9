"""Evaluation: from pictures to figures of quality."""
