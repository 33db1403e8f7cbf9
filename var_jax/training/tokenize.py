"""Makes a store of tokens: encodes the crops of a data set, file by file, so that a kill loses one file's work.

The pictures of a file depend on the settings alone, and each file begins with a new batch. So any number of processes
can share the files, a finished file is kept whichever process made it, and the store is bit for bit the same however
often the work was interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter  # Grain brings it

from var_jax.cpu.backend import backend_for
from var_jax.data import token_store as store
from var_jax.data.damage import BAD_PICTURES_FILE, BAD_SHARE, BadPictures
from var_jax.data.pipeline import cut_batches
from var_jax.data.report import notes
from var_jax.data.sources import SPLITS, Source, make_source
from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_file, local_target, write_json
from var_jax.formats.checksums import sha256
from var_jax.formats.small_files import read_json
from var_jax.model_directory import Model
from var_jax.models.net import Net
from var_jax.models.pictures import encode_pictures
from var_jax.models.tokenizer import Tokenizer
from var_jax.parallel.processes import at, from_first
from var_jax.training import fields
from var_jax.training_directory import read_any_model


@dataclasses.dataclass(frozen=True)
class Cuts:
    """The crops taken from pictures, with the settings of a training config.

    Attributes:
      count: crops per training picture; a validation picture has one, at the centre.
      enlarge, flip: see `var_jax.data.transforms.Crop`.
      seed: seed of the crops; the seed of a run gives the crops that it would see on pictures.
    """

    count: int = 1
    enlarge: float = 1.125
    flip: bool = False
    seed: int = 0


def tokenize(
    model: str | os.PathLike[str],
    kind: str,
    options: dict[str, Any],
    cuts: Cuts,
    out: str | os.PathLike[str],
    *,
    pictures_per_file: int = 4096,
    batch_size: int = 32,
    workers: int = 0,
    bad_share: float = BAD_SHARE,
    process_index: int = 0,
    process_count: int = 1,
    say: Callable[[str], None] = print,
) -> bool:
    """Writes this process's share of a store of both splits, and the store's index once every file is there.

    Args:
      model: directory of a model with a tokenizer.
      kind, options: the data set, see `make_source`.
      cuts: the crops.
      out: the store's folder, new, or the same store begun before. Processes on several hosts share it.
      pictures_per_file: pictures per file, each with all its crops.
      batch_size: pictures encoded at once.
      workers: processes that decode pictures; with 0, this process does.
      bad_share: share of a split's pictures that may be damaged.
      process_index, process_count: process p of P makes every P-th file from the p-th on.
      say: called with lines about progress.

    Returns:
      Whether the store is complete and verified; if not, files of other processes are still missing.

    Raises:
      InputError: if there is no such tokenizer or data set, `out` holds something else, cannot be written, too many
        pictures are damaged, or a number is out of range.
    """
    if kind == "tokens":
        raise InputError("data kind 'tokens' is a store already; give the pictures: shapes, folder or tfds")
    if not 0 <= process_index < process_count:
        raise InputError(f"process_index {process_index} must lie between 0 and process_count {process_count} - 1")
    numbers = {"pictures_per_file": pictures_per_file, "batch": batch_size, "workers": workers, "bad_share": bad_share}
    crops = {"crops": cuts.count, "enlarge": cuts.enlarge, "flips": cuts.flip, "crop_seed": cuts.seed}
    fields.check_values(fields.TOKENIZING | fields.OPTIONS.get(kind, {}), numbers | crops | options)
    sources = {split: make_source(kind, split, **options) for split in SPLITS}
    for line in notes(*sources.values()):
        say(line)
    loaded, folder = read_any_model(model), local_target(out)
    settings = _settings(loaded, sources, kind, options, cuts, pictures_per_file, batch_size)
    from_first("store", lambda: _claim(folder, settings))
    work = _Work(folder, settings, sources, _encoder(loaded), workers, bad_share, say)
    for split, shard in itertools.islice(work.shards(), process_index, None, process_count):
        if not work.has(shard):
            (folder / store.INDEX_FILE).unlink(missing_ok=True)
            at(f"tokenizing {shard['file']}")
            work.make(split, shard)
    return work.finish()


def _settings(
    model: Model, sources: dict[str, Source], kind: str, options: dict[str, Any], cuts: Cuts, pictures: int, batch: int
) -> dict[str, Any]:
    """All settings that determine the store's content."""
    config = model.tokenizer_config
    return {
        "format": store.FORMAT,
        "format_version": store.FORMAT_VERSION,
        "tokenizer": {
            "fingerprint": model.fingerprints["tokenizer"],
            "pyramid": list(config.pyramid.sides),
            "codebook_size": config.codebook_size,
        },
        "class_names": list(sources["train"].class_names),
        "data": {"kind": kind, "options": json.loads(json.dumps(options, default=os.fspath))},
        "crops": {"size": config.image_size, **dataclasses.asdict(cuts)},
        "dtype": store.token_dtype(config.codebook_size),
        "pictures": {split: len(source) for split, source in sources.items()},
        "pictures_a_file": pictures,
        "batch_size": batch,
    }


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Claims `folder` for a store with these settings, or checks that it has been."""
    file = folder / store.SETTINGS_FILE
    if file.exists():
        found = read_json(file, "the settings of the store", "choose another --out")
        if changed := sorted(name for name in settings if found.get(name) != settings[name]):
            raise InputError(f"{folder}: holds a store made with another {', '.join(changed)}: choose another --out")
        return
    if folder.exists() and any(not item.name.endswith(".partial") for item in folder.iterdir()):
        raise InputError(f"{folder}: is not empty and holds no store of tokens: choose another --out")
    write_json(file, settings, 1, _partial(file))


def _partial(file: Path) -> str:
    """The name of a file in the making that several processes may write at once."""
    return f"{file.name}.{os.getpid()}.partial"


def _encoder(model: Model) -> Callable[[np.ndarray], np.ndarray]:
    """A function that encodes uint8 [B, size, size, 3] into int32 [B, L], on the default device."""
    module, params = Tokenizer(model.tokenizer_config, backend=backend_for()), jax.device_put(model.tokenizer_params)
    return lambda images: np.asarray(encode_pictures(Net(module, params), jnp.asarray(images)))


@dataclasses.dataclass
class _Work:
    """A store in the making."""

    folder: Path
    settings: dict[str, Any]
    sources: dict[str, Source]
    encode: Callable[[np.ndarray], np.ndarray]
    workers: int
    bad_share: float
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.bad = {split: BadPictures(source, split, self.bad_share) for split, source in self.sources.items()}
        indexed = (self.folder / store.INDEX_FILE).exists()
        parts = store.read_index(self.folder)["splits"].values() if indexed else ()
        self.known = {shard["file"]: shard["sha256"] for part in parts for shard in part["shards"]}

    def has(self, shard: dict[str, Any]) -> bool:
        """Whether a file need not be made: it exists, and matches the index that was there before, if any."""
        file, known = self.folder / shard["file"], self.known.get(shard["file"])
        return file.exists() and (known is None or sha256(file) == known)

    def shards(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields every file of the store: its split, and its name, first picture, pictures and records."""
        size = self.settings["pictures_a_file"]
        for split in SPLITS:
            pictures, crops = self.settings["pictures"][split], self._crops(split)
            total = math.ceil(pictures / size)
            for number in range(total):
                count = min(size, pictures - number * size)
                name = f"{split}-{number:05d}-of-{total:05d}.array_record"
                yield split, {"file": name, "first": number * size, "pictures": count, "records": count * crops}

    def _crops(self, split: str) -> int:
        return self.settings["crops"]["count"] if split == "train" else 1

    def make(self, split: str, shard: dict[str, Any]) -> None:
        """Encodes one file's pictures and puts it in its place."""
        file, records = self.folder / shard["file"], self._records(split, shard)
        with atomic_file(file, f"{file.name}.partial") as temporary:
            try:
                writer = ArrayRecordWriter(str(temporary), store.WRITER_OPTIONS)
                for record in records:
                    writer.write(record)
                writer.close()
            except RuntimeError as error:  # ArrayRecord's error for a full disk
                reason = " ".join(str(error).split())[:120]
                raise InputError(
                    f"{file}: cannot be written ({reason}); free some space and run the same command again"
                ) from None
        self.say(f"{shard['file']}: {shard['records']} crops of {shard['pictures']} pictures")

    def _records(self, split: str, shard: dict[str, Any]) -> Iterator[bytes]:
        crops, dtype, left = self.settings["crops"], self.settings["dtype"], shard["pictures"]
        first, count = shard["first"], self._crops(split)
        batches = cut_batches(
            *(self.sources[split], split, count, crops["size"], self.settings["batch_size"], crops["seed"]),
            *(first, first + left),
            enlarge=crops["enlarge"],
            flip=crops["flip"],
            workers=self.workers,
        )
        with contextlib.closing(batches):
            for batch in batches:
                self.bad[split].add(batch["skipped"])
                tokens = self.encode(batch["images"].reshape(-1, *batch["images"].shape[2:]))
                rows = min(left, len(batch["labels"]))
                left -= rows
                for row in range(rows * count):
                    label, index = int(batch["labels"][row // count]), int(batch["indices"][row // count])
                    yield store.encode(tokens[row], label, index, dtype)

    def finish(self) -> bool:
        """Verifies every file and writes the index, if all files are there."""
        missing = [shard["file"] for _, shard in self.shards() if not (self.folder / shard["file"]).exists()]
        if missing:
            self.say(f"{len(missing)} files are left to other processes, like {missing[0]}")
            return False
        splits = {}
        for split in SPLITS:
            shards = [self._verified(split, shard) for part, shard in self.shards() if part == split]
            pictures, crops = self.settings["pictures"][split], self._crops(split)
            splits[split] = {"pictures": pictures, "crops": crops, "shards": shards}
        if lines := [line for split in SPLITS for line in self.bad[split].lines()]:
            file = self.folder / BAD_PICTURES_FILE
            with atomic_file(file, _partial(file)) as temporary:
                temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            self.say(f"{len(lines)} pictures could not be read and were left out, see {BAD_PICTURES_FILE}")
        file = self.folder / store.INDEX_FILE
        write_json(file, self.settings | {"splits": splits}, 1, _partial(file))
        shards = [shard for part in splits.values() for shard in part["shards"]]
        size, records = (sum(shard[name] for shard in shards) for name in ("bytes", "records"))
        self.say(f"{self.folder}: {records} crops, {size} bytes ({size / records:.0f} per crop), verified")
        return True

    def _verified(self, split: str, shard: dict[str, Any]) -> dict[str, Any]:
        """Reads every record of a file and returns the file's entry in the index."""
        file, tokenizer = self.folder / shard["file"], self.settings["tokenizer"]
        length, crops = sum(side**2 for side in tokenizer["pyramid"]), self._crops(split)
        try:
            reader = ArrayRecordReader(str(file))
            records = reader.read_all()
            reader.close()
            if len(records) != shard["records"]:
                raise ValueError(f"{len(records)} records, expected {shard['records']}")
            for number, record in enumerate(records):
                tokens, _, index = store.decode(record, length, self.settings["dtype"])
                if tokens.max() >= tokenizer["codebook_size"]:
                    raise ValueError(f"a token {tokens.max()} beyond codebook_size {tokenizer['codebook_size']}")
                wanted = shard["first"] + number // crops
                if index != wanted:
                    self.bad[split].add(np.array([wanted]))
        except (RuntimeError, ValueError) as error:
            file.unlink()  # or the same command would keep it
            raise store.damaged(file, error) from None
        return shard | {"bytes": file.stat().st_size, "sha256": sha256(file)}
