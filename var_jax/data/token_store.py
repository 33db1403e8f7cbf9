"""A store of tokens: a data set's crops encoded by a tokenizer, in ArrayRecord files, read at random.

`index.json` records the tokenizer that made it (fingerprint, pyramid, codebook size), the pictures and crops, and the
size and checksum of every file; without it a store is incomplete. A record is a crop: class id (int32), index of the
picture in its data set (int64, -1 for a validation picture that could not be read), tokens of the smallest unsigned
type that holds them; all little-endian. The K crops of a picture follow each other.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from pathlib import Path
from typing import Any

import grain
import numpy as np

from var_jax.data.sources import TOKENS
from var_jax.errors import InputError
from var_jax.formats.description import read_description
from var_jax.formats.small_files import COUNT, LIST, OBJECT, TEXT, TEXTS, read_json, require_fields
from var_jax.pyramid import Pyramid

INDEX_FILE, SETTINGS_FILE = "index.json", "settings.json"
FORMAT = "var_jax token store"
FORMAT_VERSION = 1
WRITER_OPTIONS = "group_size:1,zstd"  # a crop is read without its neighbours

_HEAD = struct.Struct("<iq")
_REMEDY = "run the same 'var-jax tokenize' command again, it replaces missing and damaged files"


class TokenStore:
    """One split of a store that `var-jax tokenize` made.

    Args:
      split: "train" or "validation".
      path: the store's folder.

    Attributes:
      holds: TOKENS.
      class_names: class names by id.
      crops: crops per picture; epoch e of training sees crop e modulo that number.
      about: the store's index.

    Raises:
      InputError: if there is no complete store, or a file is missing or has another size than in the index.
    """

    holds = TOKENS

    def __init__(self, split: str, path: str | os.PathLike[str]) -> None:
        self.about = read_index(path)
        part = self.about["splits"][split]
        self._path, self._pictures, self.crops = Path(path), part["pictures"], part["crops"]
        self.class_names = tuple(self.about["class_names"])
        self._length, self._dtype = sum(side**2 for side in self.about["tokenizer"]["pyramid"]), self.about["dtype"]
        self._files, self._first, records = [], [], 0
        for shard in part["shards"]:
            file = self._path / shard["file"]
            if not file.exists():
                raise InputError(f"{file}: is missing from its store; {_REMEDY}")
            if (found := file.stat().st_size) != (expected := shard["bytes"]):
                raise InputError(f"{file}: has {found} bytes, its store's index says {expected}: cut short? {_REMEDY}")
            self._first.append(records)
            self._files.append(_Whole(str(file), 0, shard["records"], shard["records"]))
            records += shard["records"]
        self._records = grain.sources.ArrayRecordDataSource(self._files)

    def __len__(self) -> int:
        return self._pictures

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """int32 [L] tokens of the first crop of picture `index`, and its class id; -1 if it could not be read."""
        return self.crop(index, 0)

    def crop(self, index: int, number: int) -> tuple[np.ndarray, int]:
        """int32 [L] tokens of crop `number` (modulo their number) of picture `index`, and its class id.

        Raises:
          InputError: if the record is damaged, naming its file.
        """
        place = index * self.crops + number % self.crops
        try:
            record = self._records[place]
            tokens, label, _ = decode(record, self._length, self._dtype)
        except (RuntimeError, ValueError) as error:  # how checksums of ArrayRecord fail
            file = self._files[int(np.searchsorted(self._first, place, side="right")) - 1].filename
            raise damaged(file, error) from None
        return tokens, label

    def labels(self) -> np.ndarray:
        """[N] int32 class ids of all pictures; reads every first crop."""
        return np.array([self.crop(index, 0)[1] for index in range(len(self))], np.int32)

    def require(self, fingerprint: str, tokenizer: str) -> None:
        """Refuses a model, by its tokenizer's fingerprint and path, whose tokenizer did not make this store."""
        made_by = self.about["tokenizer"]
        if made_by["fingerprint"] != fingerprint:
            raise InputError(
                f"{self._path}: another tokenizer made these tokens (fingerprint {made_by['fingerprint'][:12]}, "
                f"that of {tokenizer} is {fingerprint[:12]}): give the tokenizer they were made with, or tokenize anew"
            )


@dataclasses.dataclass(frozen=True)
class _Whole:
    """A file as ArrayRecord's reader takes it, with its number of records, so that it need not open all to count."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


def read_index(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the index of a store.

    Raises:
      InputError: if there is no store, it was not finished, or its index is damaged.
    """
    file = Path(path) / INDEX_FILE
    if not file.exists():
        begun = (Path(path) / SETTINGS_FILE).exists()
        state = "the store is not finished" if begun else "no store of tokens"
        remedy = _REMEDY if begun else "make one with 'var-jax tokenize'"
        raise InputError(f"{path}: {state}, it has no {INDEX_FILE}; {remedy}")
    remedy = f"remove it, and {_REMEDY}"
    index = read_description(file, "the index", FORMAT, FORMAT_VERSION, remedy)
    _check_index(index, file, remedy)
    settings = Path(path) / SETTINGS_FILE
    if settings.exists():  # what both say was written twice, so that an edit or a damage shows
        for name, value in read_json(settings, "the settings of the store", "copy it again").items():
            if index.get(name) != value:
                raise InputError(f"{file}: '{name}' differs from {SETTINGS_FILE} beside it; {remedy}")
    return index


def _check_index(index: dict[str, Any], file: Path, remedy: str) -> None:
    """Refuses an index with a field that is missing, of another kind, or at odds with the others."""
    need = lambda content, **fields: require_fields(content, file, fields, remedy)
    need(index, tokenizer=OBJECT, splits=OBJECT, class_names=TEXTS, dtype=TEXT, pictures=OBJECT, crops=OBJECT)
    need(index["tokenizer"], fingerprint=TEXT, pyramid=LIST, codebook_size=COUNT)
    need(index["crops"], count=COUNT)
    need(index["splits"], train=OBJECT, validation=OBJECT)
    need(index["pictures"], train=COUNT, validation=COUNT)
    try:
        Pyramid(tuple(index["tokenizer"]["pyramid"]))
    except (InputError, TypeError) as error:
        raise InputError(f"{file}: {error}; {remedy}") from None
    if index["dtype"] != token_dtype(index["tokenizer"]["codebook_size"]):
        raise InputError(f"{file}: 'dtype' is {index['dtype'][:60]!a}, which does not fit codebook_size; {remedy}")
    for split, crops in (("train", index["crops"]["count"]), ("validation", 1)):
        part = index["splits"][split]
        need(part, pictures=COUNT, crops=COUNT, shards=LIST)
        pictures = 0
        for shard in part["shards"]:
            need({"shards": shard}, shards=OBJECT)
            need(shard, file=TEXT, first=COUNT, pictures=COUNT, records=COUNT, bytes=COUNT, sha256=TEXT)
            if Path(shard["file"]).name != shard["file"]:
                raise InputError(f"{file}: 'file' is {shard['file'][:60]!a}, expected a name; {remedy}")
            if (shard["first"], shard["records"]) != (pictures, shard["pictures"] * crops):
                raise InputError(f"{file}: counts of {shard['file'][:60]!a} do not fit together; {remedy}")
            pictures += shard["pictures"]
        if {part["pictures"], index["pictures"][split]} != {pictures} or part["crops"] != crops:
            raise InputError(
                f"{file}: '{split}' has {part['pictures']} pictures and {part['crops']} crops, its files have "
                f"{pictures} and {crops}; {remedy}"
            )


def encode(tokens_L: np.ndarray, label: int, index: int, dtype: str) -> bytes:
    """The bytes of a record."""
    return _HEAD.pack(label, index) + tokens_L.astype(np.dtype(dtype).newbyteorder("<")).tobytes()


def decode(record: bytes, length: int, dtype: str) -> tuple[np.ndarray, int, int]:
    """int32 tokens, label and index of a record.

    Raises:
      ValueError: if the record does not have `length` tokens.
    """
    tokens = np.frombuffer(record, np.dtype(dtype).newbyteorder("<"), offset=_HEAD.size)
    if len(tokens) != length:
        raise ValueError(f"a record of {len(tokens)} tokens, expected {length}")
    label, index = _HEAD.unpack_from(record)
    return tokens.astype(np.int32), label, index


def token_dtype(codebook_size: int) -> str:
    """The smallest unsigned type that holds tokens 0 .. `codebook_size` - 1."""
    return str(np.min_scalar_type(codebook_size - 1))


def damaged(file: str | os.PathLike[str], error: Exception) -> InputError:
    """The error for a file whose records fail their checksums."""
    reason = " ".join(str(error).split())[:120]
    return InputError(f"{file}: a record does not match its checksum ({reason}); {_REMEDY}")
