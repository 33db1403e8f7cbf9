"""Classes as people give them: by id, by name, or none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from var_jax.errors import InputError

NO_CLASS = "none"
_NAMES_SHOWN = 12


def class_id(label: int | str | None, num_classes: int, names: Sequence[str] = ()) -> int:
    """The id of one class; None and "none" are `num_classes`, which stands for no class.

    Args:
      label: an id, a name in any case, or digits.
      num_classes: of the model.
      names: of its classes, empty where nobody named them.

    Raises:
      InputError: if there is no such class.
    """
    if label is None or (isinstance(label, str) and label.strip().lower() == NO_CLASS):
        return num_classes
    if isinstance(label, str):
        folded = [name.casefold() for name in names]
        if label.strip().casefold() in folded:
            return folded.index(label.strip().casefold())
        label = _number(label, names)
    if not 0 <= label < num_classes:
        raise InputError(f"class id {label}: this model has classes 0 to {num_classes - 1}")
    return label


def _number(text: str, names: Sequence[str]) -> int:
    digits = text.strip()
    if digits.removeprefix("-").isdecimal() and digits.isascii() and len(digits) < 10:
        return int(digits)
    if not names:
        raise InputError(f"class '{text}': expected a class id, as this model's classes have no names")
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    raise InputError(f"class '{text}': is no id and none of this model's classes ({shown})")


def parse_classes(text: str, num_classes: int, names: Sequence[str] = ()) -> list[int]:
    """Class ids from a list like "207,980", "disc, star" or "none"; commas part names, blanks too part ids.

    Raises:
      InputError: naming the class that the model does not have.
    """
    known = {name.casefold() for name in names}
    parts = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        parts += [part] if part.casefold() in known else part.split()
    if not parts:
        raise InputError(f"--classes '{text}': expected class ids like 207,980, or names")
    return [class_id(part, num_classes, names) for part in parts]


def label_text(label: int, num_classes: int, names: Sequence[str] = ()) -> str:
    """The name of a class for a message, else its id."""
    return NO_CLASS if label == num_classes else names[label] if names else str(label)


def class_ids(
    labels: Sequence[int | str | None] | np.ndarray, num_classes: int, names: Sequence[str]
) -> Sequence[int | str | None] | np.ndarray:
    """[B] ids from a list that may hold names and None; an array or a list of numbers alone is left as it is.

    Raises:
      InputError: if one is no class.
    """
    if isinstance(labels, (list, tuple)) and any(label is None or isinstance(label, str) for label in labels):
        return np.asarray([class_id(label, num_classes, names) for label in labels])
    return labels
