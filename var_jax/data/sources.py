"""`Source`, the interface of a data set, and `make_source`, which opens one by the name of its kind."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, Protocol

import numpy as np

from var_jax.errors import InputError

SPLITS = ("train", "validation")

# Kind -> (module, class). Imported on demand: a worker that draws shapes needs no TFDS.
_KINDS = {
    "shapes": ("var_jax.data.shapes", "Shapes"),
    "folder": ("var_jax.data.folder", "Folder"),
    "tfds": ("var_jax.data.tfds", "Tfds"),
    "tokens": ("var_jax.data.token_store", "TokenStore"),
}

# A batch's key for the contents of its source: pictures, or tokens made of them before.
IMAGES, TOKENS = "images", "tokens"

NO_CLASS = "none"  # the word for no class, where a class is given by its name


class Source(Protocol):
    """The pictures of one split, in any order and from any thread; it can be pickled for worker processes.

    Attributes:
      holds: usually IMAGES; a source that holds TOKENS is a `TokenStore`, or a view of one.
      class_names: class names by id.
      notes: optional; lines about what the data set holds and training does not take.
    """

    holds: str
    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """The picture as uint8 [H, W, 3] of any size, and its class id."""
        ...

    def labels(self) -> np.ndarray:
        """[N] int32 class ids of all pictures. Reads a whole `tfds` data set; the other kinds know them at once."""
        ...


class Spread:
    """A view of at most `count` pictures of a source, evenly spread over it, so that every class is among them."""

    def __init__(self, source: Source, count: int) -> None:
        """Makes a view of `source`."""
        self._source = source
        self._places = np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int)
        self.class_names, self.holds = source.class_names, source.holds
        self.notes = getattr(source, "notes", ())

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self._source[int(self._places[index])]


def make_source(kind: str, split: str, **options: Any) -> Source:
    """Opens one split of a data set.

    Args:
      kind: "shapes", "folder", "tfds", or "tokens" for a store that `var-jax tokenize` made.
      split: "train" or "validation".
      **options: arguments of `Shapes`, `Folder`, `Tfds` or `TokenStore`.

    Raises:
      InputError: if kind, split or an option is unknown or missing, or the data set cannot be used.
    """
    if kind not in _KINDS:
        raise InputError(f"data kind '{kind}' is unknown, expected one of {', '.join(_KINDS)}")
    if split not in SPLITS:
        raise InputError(f"split '{split}' is unknown, expected one of {', '.join(SPLITS)}")
    module, name = _KINDS[kind]
    opener = getattr(importlib.import_module(module), name)
    known = {key: p for key, p in inspect.signature(opener).parameters.items() if key != "split"}
    if unknown := sorted(set(options) - set(known)):
        raise InputError(f"data kind '{kind}' has no option {', '.join(unknown)}, it takes {', '.join(known)}")
    missing = [key for key, p in known.items() if p.default is inspect.Parameter.empty and key not in options]
    if missing:
        raise InputError(f"data kind '{kind}' needs the option {', '.join(missing)}")
    if options.get("path") == "":
        raise InputError(f"data kind '{kind}': the option path is empty, expected a folder")
    return opener(split=split, **options)


def check_share(share: float) -> None:
    """Refuses a share of validation pictures that would leave one of the two splits empty."""
    if not 0.0 < share < 1.0:
        raise InputError(f"validation_share {share} must lie between 0 and 1, like 0.05")
