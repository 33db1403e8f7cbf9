"""Classes as people give them: by id, by name, or none.

In text a name comes first, then an id: `--classes 2` is the class called "2", if there is one. A number that is no text
is always an id.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Sequence

import numpy as np

from var_jax.data.sources import NO_CLASS
from var_jax.errors import InputError, printable

_NAMES_SHOWN = 12


def class_id(label: int | str | None, num_classes: int, names: Sequence[str] = ()) -> int:
    """The id of one class; None and "none" are `num_classes`, which stands for no class.

    Args:
      label: an id, a name, the same in other capitals if they fit one class alone, or digits.
      num_classes: of the model.
      names: of its classes, empty where nobody named them.

    Raises:
      InputError: if there is no such class, or several could be meant.
    """
    if label is None:
        return num_classes
    if isinstance(label, str):
        found = _called(label, names)
        if len(found) > 1 or (found and _folded(label) == NO_CLASS):
            raise _ambiguous(label, found, names)
        if not found and _folded(label) == NO_CLASS:
            return num_classes
        label = found[0] if found else _number(label, names)
    if not 0 <= label < num_classes:
        raise InputError(f"class id {label}: this model has classes 0 to {num_classes - 1}")
    return label


def _called(text: str, names: Sequence[str]) -> list[int]:
    """Ids of the classes of exactly this name, else of those that differ in blanks around it, else in capitals."""
    for fold in (str, str.strip, _folded):
        if found := [label for label, name in enumerate(names) if fold(name) == fold(text)]:
            return found
    return []


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


def _ambiguous(text: str, found: Sequence[int], names: Sequence[str]) -> InputError:
    meant = [f"the class '{printable(names[label])}' with id {label}" for label in found]
    remedy = "write the exact name, or the id"
    if _folded(text) == NO_CLASS:
        meant, remedy = [*meant, "no class"], "write the id"
    return InputError(f"class '{text}': may be {' or '.join(meant)}; {remedy}")


def _number(text: str, names: Sequence[str]) -> int:
    digits = text.strip()
    if digits.removeprefix("-").isdecimal() and digits.isascii() and len(digits) < 10:
        return int(digits)
    if not names:
        raise InputError(f"class '{text}': expected a class id, as this model's classes have no names")
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    quote = "; put a name with a comma in double quotes" if any("," in name for name in names) else ""
    raise InputError(f"class '{text}': is no id and none of this model's classes ({shown}){quote}")


def parse_classes(text: str, num_classes: int, names: Sequence[str] = ()) -> list[int]:
    """Class ids from a list like "207,980", "disc, star" or "none"; commas part names, blanks too part ids.

    A name that holds a comma stands alone, or in double quotes, as in a CSV file.

    Raises:
      InputError: naming the class that the model does not have.
    """
    return [class_id(part, num_classes, names) for part in _parts(text, names)]


def _parts(text: str, names: Sequence[str]) -> list[str]:
    if _called(text, names):
        return [text]
    try:
        fields = next(csv.reader([" ".join(text.splitlines())], skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise InputError(f"--classes '{text}': is not read as a list ({error}); look at its quotes") from None
    parts = []
    for field in filter(str.strip, fields):
        parts += [field] if _called(field, names) else field.split()
    if not parts:
        raise InputError(f"--classes '{text}': expected class ids like 207,980, or names")
    return parts


def numbers_as_names(text: str, num_classes: int, names: Sequence[str], alone: bool = False) -> list[str]:
    """Lines about the numbers in a list of classes, or `alone`, that are names here and would be other classes' ids."""
    lines = []
    for name in dict.fromkeys(part.strip() for part in ([text] if alone else _parts(text, names))):
        if name in names and name.isdecimal() and int(name) < num_classes and int(name) != names.index(name):
            lines.append(
                f"class '{name}' is taken for a name, that of the class with id {names.index(name)}; the class with id "
                f"{int(name)} is '{printable(names[int(name)])}'"
            )
    return lines


def label_text(label: int, num_classes: int, names: Sequence[str] = ()) -> str:
    """The name of a class for a message, else its id."""
    return NO_CLASS if label == num_classes else printable(names[label]) if names else str(label)


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
