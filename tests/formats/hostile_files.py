"""Small files made to run code, to fill the memory or never to end, and a process that reads them under limits.

Run as a script with a folder, it prints two lines of JSON per file: its name before it is read, then the result.
"""

from __future__ import annotations

import io
import json
import pickle
import resource
import signal
import struct
import sys
import time
import zipfile
from pathlib import Path

ADDRESS_SPACE, SECONDS = 4 << 30, 20  # for one file: bytes beyond those of the interpreter, processor time
DICT, SIZE, DEVICE = b"ccollections\nOrderedDict\n", b"ctorch\nSize\n", b"ctorch\ndevice\n"
TENSOR, TYPED, PARAMETER = (
    f"ctorch._utils\n_rebuild_{name}\n".encode() for name in ("tensor", "tensor_v3", "parameter")
)
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
HASH_PRIME = 2**61 - 1  # Python's hash of an integer is its remainder by this
DAMAGED, LARGE, OTHER = "damaged or cut short", "takes more than", "something other than dicts"
START = b"\x80\x02"

Files = dict[str, tuple[str, bytes]]  # by name: the expected refusal or "read" and a count of arrays, the content


def plain(value: object) -> bytes:
    """The instructions that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def named(value: bytes) -> bytes:
    """A pickle of {"w": value}."""
    return START + b"}" + plain("w") + value + b"s."


def many(value: bytes, call: bytes, arguments: bytes) -> bytes:
    """A pickle of a list of 600 equal calls with the same value in each."""
    return named(b"](" + value + b"q\x01" + (call + b"h\x01" + arguments + b"R") * 600 + b"e")


def long_integer(length: int) -> bytes:
    """An integer of so many bytes."""
    return b"\x8b" + struct.pack("<i", length) + b"\x11" * length


def endless() -> Files:
    """What took, or would take, all of the memory or never end."""
    deep, doubled = b")" + b"\x85" * 200_000, b")" + b"q\x01h\x01\x86" * 40
    keys = [plain(i * HASH_PRIME) for i in range(50_000)]
    indexes = b"".join(f"p{i * HASH_PRIME}\n".encode() for i in range(50_000))
    long_key = long_integer(10**6) + b"q\x01N" + b"h\x01N" * 100_000
    tensor = TENSOR + b"(" + STORAGE + b"K\x00))tRq\x05"
    long_tuple = STORAGE[:-2] + b"N" * 10**6 + b"tq\x01"
    return {
        "sizes_of_one_list": (LARGE, many(b"](" + b"N" * 1_000_000 + b"e", SIZE, b"\x85")),
        "devices_of_one_text": (LARGE, many(plain("x" * 4_000_000), DEVICE, b"K\x01\x86")),
        "dicts_of_one_list": (LARGE, many(b"](" + b"K\x01K\x02\x86" * 100_000 + b"e", DICT, b"\x85")),
        "storages_of_one_tuple": (DAMAGED, named(b"](" + long_tuple + b"h\x01Q" * 10**5 + b"e")),
        "dimensions": ("fit its", named(TENSOR + b"(" + STORAGE + b"K\x00" + plain((2**62,) * 200_000) * 2 + b"tR")),
        "colliding_keys": (DAMAGED, START + b"}(" + b"N".join(keys) + b"Nu."),
        "colliding_keys_one_by_one": (DAMAGED, START + b"}" + b"Ns".join(keys) + b"Ns."),
        "colliding_keys_of_a_dict": (DAMAGED, START + b"(" + b"N".join(keys) + b"Nd."),
        "colliding_pairs": (DAMAGED, START + DICT + b"](" + b"N\x86".join(keys) + b"N\x86e\x85R."),
        "colliding_memo": (DAMAGED, START + b"}" + indexes + b"."),
        "deep_key": (DAMAGED, START + b"}" + deep + b"Ns."),
        "deep_list": ("read 0", named(b"]" * 200_000 + b"a" * 199_999)),
        "doubled_key": (DAMAGED, START + b"}" + doubled + b"Ns."),
        "doubled_key_of_pairs": (DAMAGED, START + DICT + b"]" + doubled + b"N\x86a\x85R."),
        "doubled_tuples": ("read 0", named(doubled)),
        "doubled_lists": ("read 0", START + b"]" + b"q\x01](h\x01h\x01eq\x01" * 60 + b"}" + plain("w") + b"h\x01s."),
        "doubled_dicts": ("32 deep", START + b"}" + b"q\x01}(U\x01ah\x01U\x01bh\x01u" * 60 + b"."),
        "a_dict_in_itself": ("32 deep", START + b"}q\x01U\x01ah\x01s."),
        "long_integer_as_key": (DAMAGED, START + b"}(" + long_key + b"u."),
        "long_integer_of_a_device": (DAMAGED, named(DEVICE + plain("cuda") + long_integer(10**6) + b"\x86R")),
        "long_name": (
            "name has more than",
            START + b"}" + plain("n" * 1_000_000) + b"}(" + plain("a") + tensor
            + b"".join(plain(i) + b"h\x05" for i in range(50_000)) + b"us.",
        ),
        "decimal_digits": (DAMAGED, named(b"I" + b"9" * 10**7 + b"\n")),
        "hexadecimal_digits": (f"read 0|{DAMAGED}", named(b"L0x" + b"f" * 10**7 + b"L\n")),
        "memo_index": ("read 0", START + b"}r\xff\xff\xff\xff."),
        "memo_index_as_text": (DAMAGED, START + b"}p" + b"9" * 4000 + b"\n."),
        "marks": (LARGE, START + b"(" * 10**7),
        "claim_of_text": (DAMAGED, named(b"X\xff\xff\xff\xffabc")),
        "claim_of_long_text": (DAMAGED, named(b"\x8d" + struct.pack("<Q", 2**62) + b"abc")),
        "claim_of_bytes": ("BINBYTES8", named(b"\x8e" + struct.pack("<Q", 2**33) + b"abc")),
        "claim_of_an_integer": (DAMAGED, named(b"\x8b" + struct.pack("<i", 2**31 - 1) + b"abc")),
        "claim_of_a_frame": ("read 0", b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}."),
    }  # fmt: skip


def misused() -> Files:
    """Instructions that no tensor needs, and allowed names given what they do not expect."""
    codes = {"EXT1": b"\x82\x01", "EXT2": b"\x83\x01\x00", "EXT4": b"\x84\x01\x00\x00\x00", "NEXT_BUFFER": b"\x97"}
    codes |= {"READONLY_BUFFER": b"N\x98", "OBJ": b"(" + SIZE + b"o", "DUP": b"N2", "POP": b"N0", "POP_MARK": b"(1"}
    codes |= {"NEWOBJ": SIZE + b")\x81", "NEWOBJ_EX": SIZE + b")}\x92", "EMPTY_SET": b"\x8f", "PERSID": b"Pos\n"}
    codes |= {"FROZENSET": b"(\x91", "ADDITEMS": b"](\x90", "BYTEARRAY8": b"\x96" + struct.pack("<Q", 2**33)}
    calls = {
        "attributes_of_a_function": TENSOR + b"N}U\x0c__defaults__(NNNtsb\x86b",
        "attributes_of_a_storage": STORAGE + b"N}U\x04dataNs\x86b",
        "attributes_of_a_type": b"ctorch\nFloatStorage\nN}U\x05shapeNs\x86b",
        "attributes_of_a_list": b"]}U\x09__class__Nsb",
        "instance_of_a_function": b"(i" + SIZE[1:],
        "items_of_a_function": SIZE + b"U\x01aNs",
        "items_of_a_list": b"]K\x00aK\x00Ns",
        "more_of_a_tensor": TENSOR + b"(" + STORAGE + b"K\x00))tRNa",
        "a_call_of_text": b"U\x03abc)R",
        "a_call_of_a_tensor": TENSOR + b"(" + STORAGE + b"K\x00))tR)R",
        "a_call_of_a_type": b"ctorch\nFloatStorage\n)R",
        "a_call_with_a_dict": SIZE + b"}R",
        "a_size_of_text": SIZE + b"U\x03abc\x85R",
        "a_list_of_itself_as_pairs": DICT + b"]q\x01h\x01a\x85R",
        "a_list_of_itself_as_parameter": PARAMETER + b"]q\x01h\x01a\x85R",
        "an_unknown_type": TYPED + b"(" + STORAGE + b"K\x00))I00\n}U\x04eviltR",
        "a_name_cut_short": b"ctorch\nSi",
    }
    made = {name: (f"instruction {name},", named(code)) for name, code in codes.items()}
    return made | {name: (DAMAGED, named(call)) for name, call in calls.items()}


def numpy_pickles() -> Files:
    """What should be dicts of numpy arrays."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    kind = b"cnumpy\ndtype\n(" + plain("f4") + b"I00\nI01\ntR(K\x03" + plain("<") + b"NNNK\x00K\x00K\x00tb"
    kinds = b"cnumpy\ndtype\nq\x01(" + plain("f4") + b"N" * 10**6 + b"tq\x02R" + b"h\x01h\x02R" * 10**5
    state = b"(K\x01%s" + kind + b"I00\nC\x04\0\0\0\0tb"
    made = {name: (f"{DAMAGED}|{OTHER}|more than|32 deep|read 0", content) for name, (_, content) in endless().items()
            if name != "marks" and b"ctorch" not in content and b"ccoll" not in content}  # fmt: skip
    return made | {
        "array": ("read 1", named(array + state % plain((1, 1)))),
        "array_of_dimensions": (DAMAGED, named(array + state % plain((1,) * 200_000))),
        "array_too_large": (DAMAGED, named(array + state % plain((2**62, 2**62)))),
        "array_of_another_size": (DAMAGED, named(array + state % plain((2,)))),
        "array_filled_twice": (DAMAGED, named(array + state % plain((1,)) + (state % plain((1,))))),
        "attributes_of_an_array": (OTHER, named(array + b"N}U\x05valueNs\x86b")),
        "empty_array": (OTHER, named(array)),
        "types_of_one_tuple": (LARGE, named(kinds)),
        "bare_type": (OTHER, named(kind)),
        "type_of_objects": (DAMAGED, named(kind.replace(b"f4", b"O8"))),
    }


def zipped(content: bytes, more: dict[str, bytes] | None = None, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A PyTorch file around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, part in {"data.pkl": content, "data/0": bytes(16), **(more or {})}.items():
            archive.writestr(f"archive/{name}", part)
    return file.getvalue()


def many_tensors(size: int, count: int) -> bytes:
    """A pickle of so many tensors, each of a storage of its own of `size` bytes."""
    storage = STORAGE.replace(b"X\x01\x00\x00\x000", b"X\x05\x00\x00\x00%05d").replace(b"K\x04", plain(size // 4))
    return named(b"](" + b"".join(TENSOR + b"(" + storage % i + b"K\x00))tR" for i in range(count)) + b"e")


def one_part_by_many_names(size: int, count: int, method: int) -> bytes:
    """A zip whose directory names one part again and again, each time as another storage."""
    whole = zipped(many_tensors(size, count), {"data/00000": bytes(size)}, method)
    end = whole.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", whole[end + 16 : end + 20])[0]
    directory = whole[start:end]
    entry = directory[directory.rindex(b"PK\x01\x02") :]
    directory += b"".join(entry.replace(b"data/00000", b"data/%05d" % i) for i in range(1, count))
    counts = struct.pack("<HHII", count + 2, count + 2, len(directory), start)
    return whole[:start] + directory + whole[end : end + 8] + counts + b"\0\0"


def legacy(content: bytes) -> bytes:
    """A legacy PyTorch file around a pickle."""
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    return head + content + pickle.dumps(["0"], 2) + (4).to_bytes(8, "little") + bytes(16)


def files() -> Files:
    """All of them, by the file's name."""
    made = {f"{name}.ckpt": file for name, file in numpy_pickles().items()}
    for name, (expected, content) in {**endless(), **misused()}.items():
        made[f"{name}.zip.pth"] = expected, zipped(content)
        if name in ("sizes_of_one_list", "devices_of_one_text", "dimensions", "colliding_keys", "OBJ"):
            made[f"{name}.legacy.pth"] = expected, legacy(content)
    parts = {f"data/{i:05}": bytes(30_000_000) for i in range(10)}
    return made | {
        "one_packed_part.zip.pth": ("overlap", one_part_by_many_names(40_000_000, 100, zipfile.ZIP_DEFLATED)),
        "one_stored_part.zip.pth": ("overlap", one_part_by_many_names(20_000_000, 10_000, zipfile.ZIP_STORED)),
        "large_parts.zip.pth": ("unpacks to far more", zipped(many_tensors(30_000_000, 10), parts)),
    }


def _most_megabytes() -> int:
    """Memory that this program held at most; `getrusage` would count the process that started it, too."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) >> 10


def read_all(folder: Path) -> None:
    """Reads every file of the folder as a command would, and prints the result."""
    from var_jax.errors import InputError
    from var_jax.formats.numpy_pickle import read_numpy_pickle
    from var_jax.formats.tensors import flatten_state_dict, read_tensors

    limit = ADDRESS_SPACE + int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for file in sorted(folder.iterdir()):
        print(json.dumps({"file": file.name}), flush=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # beyond which the process ends
        start = time.process_time()
        try:
            tree = (read_numpy_pickle if file.suffix == ".ckpt" else read_tensors)(file)
            result = f"read {len(flatten_state_dict(tree))}"
        except InputError as error:
            result = str(error)
        memory = _most_megabytes()
        print(json.dumps({"result": result, "seconds": time.process_time() - start, "megabytes": memory}), flush=True)


if __name__ == "__main__":
    read_all(Path(sys.argv[1]))
