"""Classes by id, by name, and none."""

from __future__ import annotations

import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.generation.classes import class_id, class_ids, label_text, numbers_as_names, parse_classes

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


def test_exact_names_come_before_folded_ones():
    """Letters A and a."""
    names = ("A", "a", "B", "ß", "SS")
    assert parse_classes("a,A,b", 5, names) == [1, 0, 2]
    assert class_id("a", 5, names) == 1
    np.testing.assert_array_equal(class_ids(["a", " A ", "b"], 5, names), [1, 0, 2])
    for text in ("ss", "Ss"):
        with pytest.raises(InputError, match=f"'{text}': may be the class 'ß' with id 3 or the class 'SS' with id 4; "):
            parse_classes(text, 5, names)
    names = ("cat", "Cat", "dog")
    with pytest.raises(
        InputError, match="^class 'CAT': may be the class 'cat' with id 0 or the class 'Cat' with id 1; wr"
    ):
        class_id("CAT", 3, names)


def test_names_that_differ_in_blanks_or_in_how_accents_are_written():
    assert [class_id(text, 2, ("a ", "a")) for text in ("a", "a ")] == [1, 0]
    with pytest.raises(InputError, match="may be the class 'a ' with id 0 or the class ' a' with id 1"):
        class_id("a", 2, ("a ", " a"))
    assert class_id("Caf\u00e9", 1, ("cafe\u0301",)) == 0  # as macOS writes the names of folders


def test_names_with_commas():
    names = ("1", "tench, Tinca tinca", "b", 'a "quoted" name')
    for text, expected in {
        "tench, Tinca tinca": [1],
        "Tench, tinca TINCA": [1],
        '"tench, Tinca tinca",b': [1, 2],
        '1, "tench, Tinca tinca"': [0, 1],
        'a "quoted" name': [3],
        '"a ""quoted"" name", b': [3, 2],
    }.items():
        assert parse_classes(text, 4, names) == expected
    with pytest.raises(InputError, match="class 'tench': is no id .*; put a name with a comma in double quotes"):
        parse_classes("tench, Tinca tinca,b", 4, names)
    assert parse_classes("1\n2,\r3", 4, names) == [0, 2, 3]
    for text in ('"b', '"b"c'):
        with pytest.raises(InputError, match="^--classes '.*: is not read as a list"):
            parse_classes(text, 4, names)


@pytest.mark.parametrize("name", ["none", "None", " NONE"])
def test_the_word_for_no_class_is_no_name_in_silence(name):
    names = ("disc", name)
    assert class_id("disc", 2, names) == 0
    assert class_id(None, 2, names) == 2
    assert class_id("1", 2, names) == 1
    for text in ("none", name):
        with pytest.raises(InputError, match=f"may be the class '{name}' with id 1 or no class; write the id$"):
            parse_classes(text, 2, names)


def test_a_number_in_text_is_a_name_first():
    """Folders 0 to 11 in the order of the alphabet; a number in Python is an id."""
    names = tuple(sorted(str(i) for i in range(12)))
    assert parse_classes("2,10,0", 12, names) == [4, 2, 0]
    assert class_ids([2, 10], 12, names) == [2, 10]
    np.testing.assert_array_equal(class_ids(["2", None], 12, names), [4, 12])
    lines = numbers_as_names("2, 0, 2", 12, names)
    assert lines == ["class '2' is taken for a name, that of the class with id 4; the class with id 2 is '10'"]
    assert numbers_as_names("2", 12, names, alone=True) == lines
    assert numbers_as_names("0,1,2", 3, ("0", "1", "2")) == numbers_as_names("7", 3, NAMES) == []


def test_odd_characters_of_names_are_printed_as_escapes():
    assert label_text(0, 1, ("a\x1b[31m\n\u202eb\udce9é",)) == r"a\x1b[31m\n\u202eb\udce9é"
