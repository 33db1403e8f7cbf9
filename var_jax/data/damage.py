"""Counts and names pictures that cannot be read; too many of them are an error."""

from __future__ import annotations

import numpy as np

from var_jax.data.sources import Source
from var_jax.errors import InputError, printable

BAD_PICTURES_FILE = "bad_pictures.txt"
BAD_SHARE = 0.05  # default share of a split's pictures that may be damaged


class BadPictures:
    """The damaged pictures of one split found so far."""

    def __init__(self, source: Source, split: str, share: float) -> None:
        """Allows `share` of the source's pictures to be damaged; more is an error."""
        self._source, self._split, self._share = source, split, share
        self._found: dict[int, str] = {}

    def add(self, skipped: np.ndarray) -> list[str]:
        """Records the indices in `skipped` that are not -1; returns one line per index that is new.

        Raises:
          InputError: if more pictures are damaged than allowed.
        """
        new = sorted({int(index) for index in skipped if index >= 0} - self._found.keys())
        self._found |= {index: self._reason(index) for index in new}
        most = self._share * len(self._source)
        if new and len(self._found) > most:
            raise InputError(
                f"{len(self._found)} of {len(self._source)} pictures cannot be read so far, more than the share of "
                f"{self._share:g} that may be damaged ({self._found[new[0]]}): repair or remove them"
            )
        return [self._line(index) for index in new]

    def lines(self) -> list[str]:
        """Lines for all damaged pictures found, in the source's order."""
        return [self._line(index) for index in sorted(self._found)]

    def _line(self, index: int) -> str:
        return printable(f"{self._split} picture {index}: {self._found[index]}")

    def _reason(self, index: int) -> str:
        try:
            self._source[index]
        except InputError as error:
            return str(error)
        return "could not be read at first, but could on a second try"
