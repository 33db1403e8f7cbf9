"""Classes by id, by name, and none."""

from __future__ import annotations

import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.generation.classes import class_id, class_ids, label_text, parse_classes

NAMES = ("disc", "great white shark", "7")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,2", [0, 2]),
        ("2 0", [2, 0]),
        ("Disc, GREAT white shark", [0, 1]),
        ("none", [3]),
        ("disc none 1", [0, 3, 1]),
        ("7", [2]),  # a name before an id
    ],
)
def test_lists(text, expected):
    assert parse_classes(text, 3, NAMES) == expected


@pytest.mark.parametrize(
    ("text", "names", "needle"),
    [
        ("3", NAMES, "class id 3: this model has classes 0 to 2"),
        ("-1", NAMES, "class id -1"),
        ("cat", NAMES, r"class 'cat': is no id and none of this model's classes \(disc, great white shark, 7\)"),
        ("cat", (), "class 'cat': expected a class id, as this model's classes have no names"),
        ("²", (), "class '²'"),
        ("1" * 5000, (), "expected a class id"),
        (" , ", NAMES, "expected class ids like 207,980, or names"),
    ],
)
def test_classes_that_there_are_not(text, names, needle):
    with pytest.raises(InputError, match=needle):
        parse_classes(text, 3, names)


def test_labels_of_a_notebook():
    np.testing.assert_array_equal(class_ids(["disc", None, 1], 3, NAMES), [0, 3, 1])
    numbers = [0, 99]
    assert class_ids(numbers, 3, NAMES) is numbers  # checked where arrays are
    assert class_id(None, 3) == 3
    assert [label_text(label, 3, NAMES) for label in (0, 3)] == ["disc", "none"]
    assert label_text(1, 3) == "1"
