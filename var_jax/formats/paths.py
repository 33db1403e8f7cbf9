"""Paths as people write them."""

from __future__ import annotations

import os


def expanded(path: str) -> str:
    """The path with the home folder for a leading ~ or ~user, which a shell leaves alone after "="."""
    return os.path.expanduser(path)
