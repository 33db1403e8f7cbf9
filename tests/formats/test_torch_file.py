"""PyTorch's formats without PyTorch: our writer and reader, damage of every kind, and pickles that want to run code."""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.formats import samples
from var_jax.errors import InputError
from var_jax.formats import torch_file
from var_jax.formats.safe_pickle import Problem
from var_jax.formats.torch_file import read_torch_file, write_torch_file
from var_jax.formats.torch_pickle import pickle_state_dict, read_pickle

SMALL = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, ml_dtypes.bfloat16)}


def repacked(path: Path, **changes: bytes | None) -> Path:
    """The zip file with the entries in `changes` replaced, added, or (None) left out."""
    with zipfile.ZipFile(path) as archive:
        entries = {name.removeprefix("archive/"): archive.read(name) for name in archive.namelist()}
    entries |= {name.replace("__", "/").replace("_pkl", ".pkl"): content for name, content in changes.items()}
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            if content is not None:
                archive.writestr(f"archive/{name}", content)
    return path


def from_pickle(content: bytes) -> Any:
    """Reads a pickle whose storages all hold four float32, 0 to 3."""
    return read_pickle(io.BytesIO(content), lambda ref: np.arange(4, dtype=np.float32).view(np.uint8)[: ref.nbytes])


def tensor_pickle(offset: object, shape: object, strides: object, elements: object = 4) -> bytes:
    """A bare float32 tensor with whatever geometry."""
    content = pickle.dumps(("storage", "TYPE", "0", "cpu", elements), 2)[2:-1]
    storage = content.replace(b"X\x04\x00\x00\x00TYPE", b"ctorch\nFloatStorage\n") + pickle.BINPERSID
    rest = b"".join(pickle.dumps(value, 2)[2:-1] for value in (offset, shape, strides))
    call = b"ctorch._utils\n_rebuild_tensor\n"
    return b"\x80\x02" + call + pickle.MARK + storage + rest + pickle.TUPLE + pickle.REDUCE + pickle.STOP


def test_round_trip_keeps_bits_and_order(tmp_path):
    written = samples.tensors()
    write_torch_file(tmp_path / "a.pth", written)
    read = read_torch_file(str(tmp_path / "a.pth"))
    samples.assert_same(read, written)
    assert list(read) == list(written)
    assert not any(array.flags.writeable for array in read.values())


def test_equal_tensors_give_equal_bytes(tmp_path):
    for name in ("a.pth", "b.pth"):
        write_torch_file(tmp_path / name, samples.tensors())
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def test_no_tensor_at_all(tmp_path):
    write_torch_file(tmp_path / "a.pth", {})
    assert read_torch_file(tmp_path / "a.pth") == {}


def test_arrays_are_aligned_views_of_the_file(tmp_path):
    write_torch_file(tmp_path / "a.pth", SMALL)
    array = read_torch_file(tmp_path / "a.pth")["a.weight"]
    assert array.ctypes.data % 64 == 0
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    assert type(base.obj if isinstance(base, memoryview) else base).__name__ == "mmap"


def test_64_bit_sizes_keep_the_alignment(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "_LARGE", 0)  # as for entries beyond a GiB
    write_torch_file(tmp_path / "a.pth", SMALL)
    read = read_torch_file(tmp_path / "a.pth")
    samples.assert_same(read, SMALL)
    assert all(array.ctypes.data % 64 == 0 for array in read.values())


def test_legacy_file(tmp_path):
    written = {name: np.array(a, order="C") for name, a in samples.tensors().items() if a.dtype.isnative}
    (tmp_path / "a.pth").write_bytes(samples.legacy_bytes(written))
    samples.assert_same(read_torch_file(tmp_path / "a.pth"), written)


def test_views_and_pairs_of_the_oldest_legacy_files(tmp_path):
    (tmp_path / "a.pth").write_bytes(samples.oldest_legacy_bytes())
    assert {name: array.tolist() for name, array in read_torch_file(tmp_path / "a.pth").items()} == {"part": [2, 3]}
    beyond = samples.oldest_legacy_bytes(first=5)
    (tmp_path / "b.pth").write_bytes(beyond)
    with pytest.raises(InputError, match="b.pth: a view of storage '7' reaches beyond its end"):
        read_torch_file(tmp_path / "b.pth")


def test_the_other_byte_order(tmp_path):
    write_torch_file(tmp_path / "a.pth", {"f": np.arange(3, dtype=np.float32), "c": np.array([1 + 2j], np.complex64)})
    other = {"little": b"big", "big": b"little"}[sys.byteorder]
    swapped = {"data__0": np.arange(3, dtype=np.float32).byteswap().tobytes()}
    swapped["data__1"] = np.array([1, 2], np.float32).byteswap().tobytes()
    read = read_torch_file(repacked(tmp_path / "a.pth", byteorder=other, **swapped))
    assert read["f"].tolist() == [0, 1, 2]
    assert read["c"].tolist() == [1 + 2j]
    assert not read["f"].flags.writeable


def test_a_compressed_zip(tmp_path):
    write_torch_file(tmp_path / "a.pth", SMALL)
    with zipfile.ZipFile(tmp_path / "a.pth") as old, zipfile.ZipFile(tmp_path / "b.pth", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name), zipfile.ZIP_DEFLATED)
    samples.assert_same(read_torch_file(tmp_path / "b.pth"), SMALL)


@pytest.mark.parametrize("bad", [np.array(["text"]), np.array([None]), np.zeros(2, np.uint16)])
def test_the_writer_refuses_other_types(tmp_path, bad):
    with pytest.raises(InputError, match=r"a\.pth: tensor 'x' of type .* cannot be written"):
        write_torch_file(tmp_path / "a.pth", {"x": bad})
    assert samples.only_files_in(tmp_path) == []


def test_a_write_that_fails_keeps_the_old_file(tmp_path, file_size_limit):
    write_torch_file(tmp_path / "a.pth", SMALL)
    with pytest.raises(InputError, match=r"a\.pth: cannot be written"):
        write_torch_file(tmp_path / "a.pth", {"big": np.zeros(file_size_limit)})
    samples.assert_same(read_torch_file(tmp_path / "a.pth"), SMALL)
    assert samples.only_files_in(tmp_path) == ["a.pth"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"some text\n", "not a PyTorch file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not a PyTorch file"),
        (pickle.dumps({"a": 1}, 2), "PyTorch did not write it"),
        (b"\x80", "damaged or cut short"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(999, 2), "version 1001"),
        (b"PK\x03\x04" + bytes(100), "zip file is damaged or cut short"),
        (b"PK\x03\x04", "zip file is damaged or cut short"),
    ],
)
def test_foreign_content(tmp_path, content, message):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match=f"a.pth: .*{message}"):
        read_torch_file(tmp_path / "a.pth")


def test_wrong_paths(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    expected = {"missing.pth": "no such file", ".": "a folder", "pipe": "not a regular file", "loop": "cannot be read"}
    for name, message in {**expected, "file/a.pth": "cannot be read"}.items():
        with pytest.raises(InputError, match=message) as caught:
            read_torch_file(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_pkl": None}, "holds 0 data.pkl"),
        ({"data__0": None}, "part 'data/0' is missing"),
        ({"data__0": bytes(20)}, "storage '0' has 20 bytes where its tensors need 24"),
        ({"byteorder": b"middle"}, "byte order is 'middle'"),
        ({"data_pkl": b"\x80\x02}"}, "pickle inside is damaged or cut short"),
        ({"data_pkl": b""}, "pickle inside is damaged or cut short"),
    ],
)
def test_a_zip_that_lacks_something(tmp_path, changes, message):
    write_torch_file(tmp_path / "a.pth", SMALL)
    with pytest.raises(InputError, match=f"a.pth: .*{message}"):
        read_torch_file(repacked(tmp_path / "a.pth", **changes))


def test_a_flipped_bit_in_a_weight_is_noticed(tmp_path):
    write_torch_file(tmp_path / "a.pth", SMALL)
    content = bytearray((tmp_path / "a.pth").read_bytes())
    content[content.index(SMALL["a.weight"].tobytes()) + 5] ^= 1
    (tmp_path / "b.pth").write_bytes(content)
    with pytest.raises(InputError, match="part 'data/0' is damaged, for its checksum differs"):
        read_torch_file(tmp_path / "b.pth")


def test_a_small_zip_cannot_fill_the_memory(tmp_path):
    write_torch_file(tmp_path / "a.pth", {"a": np.zeros(2**20, np.uint8)})
    with zipfile.ZipFile(tmp_path / "a.pth") as old, zipfile.ZipFile(tmp_path / "b.pth", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name), zipfile.ZIP_DEFLATED)
    content = (tmp_path / "b.pth").read_bytes()
    sizes = re.compile(
        re.escape(struct.pack("<I", zlib.crc32(bytes(2**20)))) + b".{4}" + struct.pack("<I", 2**20), re.S
    )
    announced, count = sizes.subn(lambda found: found[0][:8] + struct.pack("<I", 2**10), content)
    assert count == 2  # in the entry's own header and in the directory
    (tmp_path / "c.pth").write_bytes(announced)
    with pytest.raises(InputError, match="part 'data/0' is damaged"):
        read_torch_file(tmp_path / "c.pth")


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "expected"),
    [
        (0, (2, 2), (2, 1), [[0, 1], [2, 3]]),
        (0, (2, 2), (1, 2), [[0, 2], [1, 3]]),
        (1, (3,), (1,), [1, 2, 3]),
        (2, (), (), 2),
        (3, (5,), (0,), [3] * 5),
        (0, (1, 4), (2**62, 1), [[0, 1, 2, 3]]),
        (4, (0,), (1,), []),
        (0, (2, 2), (1, 1), [[0, 1], [1, 2]]),
    ],
)
def test_geometry(offset, shape, strides, expected):
    assert from_pickle(tensor_pickle(offset, shape, strides)).tolist() == expected


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2, 2), (3, 1)),
        (4, (), ()),
        (5, (0,), (1,)),
        (2**62, (1,), (1,)),
        (0, (2**62, 2**62), (0, 0)),
        (0, (2**40,), (0,)),
        (0, (0, 2**62), (1, 1)),
        (0, (1,) * 40, (1,) * 40),
    ],
)
def test_geometry_beyond_the_storage(offset, shape, strides):
    with pytest.raises(Problem, match="does not fit its storage of 4 elements"):
        from_pickle(tensor_pickle(offset, shape, strides))


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "elements"),
    [
        (-1, (1,), (1,), 4),
        (0, (-1,), (1,), 4),
        (3, (2,), (-1,), 4),
        (0, (2,), (1, 1), 4),
        (0, (2**70,), (0,), 4),
        (0, (1,), (1,), -4),
        (0, (1,), (1,), 2**70),
        (True, (1,), (1,), 4),
        (0, (1.5,), (1,), 4),
        (0, [1], [1], 4),
        (None, (1,), (1,), 4),
        ("0", (1,), (1,), "4"),
    ],
)
def test_geometry_that_is_none(offset, shape, strides, elements):
    with pytest.raises(Problem, match="damaged"):
        from_pickle(tensor_pickle(offset, shape, strides, elements))


def test_counts_beyond_32_bits_are_written_whole():
    refs = []
    read_pickle(io.BytesIO(pickle_state_dict([("a", "CharStorage", "0", (2**20, 2**21))])), refs.append)
    assert [ref.elements for ref in refs] == [2**41]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_containers_of_every_protocol(protocol):
    tree = {"a": [1, -2, 2**40, 2**90, True, None, 1.5, "é", ""], "b": {0: (), 1: (1,), 2: (1, 2, 3, 4)}, 3.0: {}}
    tree["again"] = tree["b"]
    assert from_pickle(pickle.dumps(tree, protocol)) == tree


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_that_want_to_run_code(tmp_path, protocol):
    for name, attack in samples.attacks(tmp_path / "ran"):
        for tree in (attack, {"weight": [1, attack]}):
            content = pickle.dumps(tree, protocol)
            with pytest.raises(Problem, match=name):
                from_pickle(content)
            assert not (tmp_path / "ran").exists()
            if name == "eval":  # the attack is real: Python's own machine would run it
                pickle.loads(content)
                (tmp_path / "ran").unlink()


def test_an_attack_in_each_part_of_each_format(tmp_path):
    attack = pickle.dumps(samples.Attack(os.system, f"touch '{tmp_path / 'ran'}'"), 2)
    write_torch_file(tmp_path / "a.pth", SMALL)
    repacked(tmp_path / "a.pth", data_pkl=attack)
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}, {}, [])]
    for i in range(5):
        (tmp_path / f"legacy{i}.pth").write_bytes(b"".join([*head[:i], attack, *head[i + 1 :]]))
    for path in sorted(tmp_path.glob("*.pth")):
        with pytest.raises(InputError, match=f"{path.name}: .*{os.system.__module__}.system, refused"):
            read_torch_file(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"(i" + b"posix\nsystem\n.", "posix.system"),
        (b"cos\nsystem\n.", "os.system"),
        (b"ctorch.hub\nload\n.", "torch.hub.load"),
        (b"ctorch\nload\n.", "torch.load"),
        (b"c\xc3\xa9\nx\n.", r"\\xe9.x, refused"),
        (b"Pos\n.", "PERSID"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"ccollections\nOrderedDict\n.", "bare object collections.OrderedDict"),
        (b"]ctorch\nFloatStorage\na.", "bare object torch.FloatStorage"),
        (b"ccollections\nOrderedDict\n]R.", "damaged"),
        (b"X\x03\x00\x00\x00abc)R.", "damaged"),
        (b"ctorch\nfloat32\n)R.", "damaged"),
        (b"ctorch\nSize\n(I1\nI2\ntR.", "damaged"),
        (b"ctorch._utils\n_rebuild_parameter\n(NI01\nNtR.", "damaged"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(NNNNNNtR.", "damaged"),
        (b"ctorch._utils\n_rebuild_tensor_v3\n(NNNNNNNtR.", "damaged"),
        (b"ctorch\ndevice\n(](tR.", "damaged"),
        (b"}(]I1\nu.", "damaged"),
        (b"}()I1\nu.", "damaged"),
        (b"}(I1\nu.", "damaged"),
        (b"]}b.", "damaged"),
        (b"a.", "damaged"),
        (b"t.", "damaged"),
        (b"\x86.", "damaged"),
        (b".", "damaged"),
        (b"h\x05.", "damaged"),
        (b"I" + b"9" * 5000 + b"\n.", "damaged"),
        (b"X\xff\xff\xff\x7fabc.", "damaged"),
        (b"r\xff\xff\xff\x7f.", "damaged"),
    ],
)
def test_instructions_out_of_place(content, message):
    with pytest.raises(Problem, match=message):
        from_pickle(content)


def test_the_memo_takes_no_room_for_numbers_never_used():
    assert from_pickle(b"]r\xff\xff\xff\x7f.") == []


def test_deep_nesting_neither_crashes_nor_hangs():
    assert type(from_pickle(b"]" * 100_000 + b"a" * 99_999 + b".")) is list
    with pytest.raises(Problem, match="damaged"):
        from_pickle(b"})" + b"\x85" * 100_000 + b"I1\ns.")  # as the key of a dict
    looped = from_pickle(b"]q\x00h\x00a.")
    assert looped[0] is looped


# A flip can make an escape sequence that Python's parser of old text pickles warns of.
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("make", ["zip", "legacy"])
def test_random_damage_never_escapes(tmp_path, make):
    if make == "zip":
        write_torch_file(tmp_path / "a.pth", SMALL)
        content = (tmp_path / "a.pth").read_bytes()
    else:
        content = samples.legacy_bytes(SMALL)
    samples.assert_only_input_errors(read_torch_file, content, tmp_path, count=400, seed=1)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_random_damage_of_the_pickle_alone():
    content = pickle_state_dict([("a.weight", "FloatStorage", "0", (2, 2)), ("b", "FloatStorage", "1", ())])
    read = 0
    for copy in samples.damaged(content, 800, seed=2):
        try:
            from_pickle(copy)
            read += 1
        except Problem:
            pass
    assert read > 20  # flips in names and numbers often leave a pickle that reads


def test_two_sizes_of_one_storage(tmp_path):
    write_torch_file(tmp_path / "a.pth", SMALL)
    content = pickle_state_dict([("a", "FloatStorage", "0", (6,)), ("b", "FloatStorage", "0", (5,))])
    with pytest.raises(InputError, match="a.pth: its storage '0' has two types or sizes"):
        read_torch_file(repacked(tmp_path / "a.pth", data_pkl=content))
    (tmp_path / "b.pth").write_bytes(samples.legacy_bytes(SMALL).replace(b"X\x01\x00\x00\x001", b"X\x01\x00\x00\x000"))
    with pytest.raises(InputError, match="b.pth: its storage '0' has two types or sizes"):
        read_torch_file(tmp_path / "b.pth")
