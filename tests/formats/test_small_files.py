"""Small files that are damaged in every way are refused in one line that names them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from var_jax.errors import InputError
from var_jax.formats.mapped import map_file
from var_jax.formats.small_files import (
    COUNT,
    LIST,
    NUMBER,
    OBJECT,
    TEXT,
    TEXTS,
    open_arrays,
    read_arrays,
    read_json,
    read_text,
    require_fields,
)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "nested more than 50 deep"),
        (b"[1]", "is not the index, expected an object"),
        (b'{"a": ' + b"1" * 5000 + b"}", "cannot be read as JSON"),
        (b" " * (2**24 + 1), "more than 16 MiB"),
    ],
)
def test_json_that_is_refused(tmp_path: Path, content: bytes, reason: str):
    file = tmp_path / "index.json"
    file.write_bytes(content)
    for path in (file, str(file), epath.Path(file)):
        with pytest.raises(InputError, match=f"{file}.*{reason}") as caught:
            read_json(path, "the index")
        assert "\n" not in str(caught.value)


def test_places_that_are_no_files(tmp_path: Path):
    with pytest.raises(InputError, match="not a regular file"):
        read_text(tmp_path, "the note")
    with pytest.raises(InputError, match="no such file, expected the note"):
        read_text(tmp_path / "a", "the note")
    with pytest.raises(InputError, match="not a regular file"), open_arrays("/dev/null", "pictures"):
        pass
    file = tmp_path / "a.json"
    file.write_text('{"a": [1, {"b": "ü"}]}')
    assert read_json(file, "it") == {"a": [1, {"b": "ü"}]}


@pytest.mark.parametrize("kind", [COUNT, NUMBER, TEXT, OBJECT, LIST, TEXTS])
def test_fields_are_of_their_kind(kind):
    right = {COUNT: 3, NUMBER: 0.5, TEXT: "a", OBJECT: {}, LIST: [1], TEXTS: ["a"]}[kind]
    require_fields({"a": right}, "x.json", {"a": kind})
    for wrong in (None, True, -1, float("nan"), 10**400, "b", [{}], {"a": 1}):
        if not kind.fits(wrong):
            with pytest.raises(InputError, match=r"x.json: 'a' is .*, expected"):
                require_fields({"a": wrong}, "x.json", {"a": kind})
    with pytest.raises(InputError, match="has no 'b'"):
        require_fields({"a": right}, "x.json", {"b": kind})


def _npz(content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("a.npy", content)
    return stream.getvalue()


def _npy(array: np.ndarray, **replaced: object) -> bytes:
    stream = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array) | replaced
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + array.tobytes()


ROWS = np.arange(6, dtype=np.uint8).reshape(2, 3)
ARRAYS = [ROWS, np.asfortranarray(ROWS * 0.5), np.array("text"), np.zeros((0, 3)), np.int64(3)]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "array", [ROWS, np.asfortranarray(ROWS * 0.5), np.array("text"), np.zeros((0, 3)), np.int64(3)]
)
def test_arrays_come_back(tmp_path: Path, array: np.ndarray, method: int):
    (np.savez if method == zipfile.ZIP_STORED else np.savez_compressed)(tmp_path / "x.npz", a=array, b=ROWS)
    found = read_arrays(tmp_path / "x.npz", "it", ("a",))["a"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.asarray(array).dtype


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "not a whole .npz"),
        (_npy(ROWS), "not a whole .npz"),
        (_npz(_npy(ROWS))[:-30], "not a whole .npz"),
        (_npz(b""), "a is damaged"),
        (_npz(_npy(ROWS, shape=(-1, 3))), "a is damaged"),
        (_npz(_npy(ROWS, shape=(1, 3))), "does not have"),
        (_npz(_npy(ROWS, shape=(2**60, 3))), "does not have"),
        (_npz(_npy(ROWS, shape=(True, 6))), "a is damaged"),
        (_npz(_npy(ROWS, descr="|O")), "a is damaged"),
        (_npz(_npy(ROWS, descr="<f4")), "does not have"),
        (_npz(_npy(ROWS), zipfile.ZIP_LZMA), "unusual way"),
        (_npz(_npy(ROWS), zipfile.ZIP_BZIP2), "unusual way"),
        (_npz(_npy(ROWS)).replace(b"\x00\x05", b"\x63\x05"), "damaged"),
    ],
)
def test_arrays_that_are_refused(tmp_path: Path, content: bytes, reason: str):
    file = tmp_path / "x.npz"
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"{file}.*{reason}") as caught:
        read_arrays(file, "it", ("a",))
    assert "\n" not in str(caught.value)


def test_every_bit_of_an_archive_matters_or_is_harmless(tmp_path: Path):
    np.savez(tmp_path / "x.npz", a=ROWS, b=ROWS * 2)
    whole = (tmp_path / "x.npz").read_bytes()
    for bit in range(0, 8 * len(whole), 3):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "y.npz").write_bytes(flipped)
        try:
            with open_arrays(tmp_path / "y.npz", "it") as archive:
                archive.check_names()
                found = {name: archive.read(name) for name in ("a", "b")}
        except InputError as error:
            assert "\n" not in str(error) and "y.npz" in str(error)
        else:
            np.testing.assert_array_equal(found["a"], ROWS)
            np.testing.assert_array_equal(found["b"], ROWS * 2)


def test_encrypted_entries_are_named(tmp_path: Path):
    np.savez(tmp_path / "x.npz", a=ROWS)
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[6] |= 1  # the flags of the entry, and those in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match="unusual way"):
        read_arrays(tmp_path / "x.npz", "it", ("a",))


def test_missing_and_large_arrays_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.savez(tmp_path / "x.npz", a=ROWS)
    monkeypatch.setattr("var_jax.formats.small_files._MOST_ARRAY_BYTES", 5)
    with pytest.raises(InputError, match="a is damaged .*has 6 bytes"):
        read_arrays(tmp_path / "x.npz", "statistics", ("a",))
    with pytest.raises(InputError, match="has no array called mu"):
        read_arrays(tmp_path / "x.npz", "statistics", ("mu",))


def test_no_message_is_as_long_as_a_damaged_file(tmp_path: Path):
    message = str(InputError("start " + "x" * 10**6 + " end"))
    assert (message[:6], message[-4:]) == ("start ", " end")
    assert len(message) < 2010
    with pytest.raises(InputError, match="cannot be read .*null"):
        map_file(tmp_path / "a\0b")
