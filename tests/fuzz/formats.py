"""Every format that is read, as a whole file or folder and a reader, which imports no more than it needs."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.formats.samples import legacy_bytes

ARRAYS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.arange(5, dtype=np.int64),
    "c": np.float16([1, 2]),
}


@dataclasses.dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
      write: puts a whole one, a file or a folder, at a path.
      read: what a command reads of it.
      damages: the files of the folder that are damaged in turn; none: it is a file itself.
      sealed: checksums guard what is read: it is equal, or refused.
      cases: the share of all cases, in fifties.
    """

    write: Callable[[Path], None]
    read: Callable[[Path], Any]
    damages: tuple[str, ...] = ()
    sealed: bool = False
    cases: int = 1


def _bytes(make: Callable[[], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(make()) and None


def _tensors(path: Path) -> Any:
    from var_jax.formats.tensors import read_state_dict

    return read_state_dict(path)


def _torch(path: Path) -> None:
    from var_jax.formats.torch_file import write_torch_file

    write_torch_file(path, ARRAYS)


def _packed_torch(path: Path) -> None:
    """As `_torch`, but compressed."""
    _torch(path)
    stored = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info in stored.infolist():
            archive.writestr(info.filename, stored.read(info))


def _safetensors(path: Path) -> None:
    from var_jax.formats.safetensors_file import write_safetensors

    write_safetensors(path, ARRAYS, {"made": "here"})


def _numpy_pickle(path: Path) -> None:
    import pickle

    path.write_bytes(pickle.dumps({"layer": {"w": ARRAYS["a.weight"], "b": ARRAYS["b"]}}, 4))


def _read_numpy_pickle(path: Path) -> Any:
    from var_jax.formats.numpy_pickle import read_numpy_pickle

    return read_numpy_pickle(path)


def _parts(path: Path) -> None:
    path.mkdir(exist_ok=True)
    places = {}
    for number, name in enumerate(ARRAYS, 1):
        places[name] = f"m-{number:05}-of-{len(ARRAYS):05}.safetensors"
        from var_jax.formats.safetensors_file import write_safetensors

        write_safetensors(path / places[name], {name: ARRAYS[name]}, {})
    (path / "m.safetensors.index.json").write_text(json.dumps({"metadata": {"total": 1}, "weight_map": places}))


_STATISTICS = {"mu": np.zeros(6), "sigma": np.eye(6), "mu_s": np.ones(4), "sigma_s": np.eye(4), "count": np.int64(9)}


def _npz(save: Callable[..., None], **arrays: np.ndarray) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            save(file, **arrays)

    return write


def _statistics(path: Path) -> Any:
    from var_jax.evaluation.statistics import read_statistics

    pool, spatial = read_statistics(path, 6, 4)
    return {"pool": pool and pool._asdict(), "spatial": spatial and spatial._asdict()}


_PICTURES = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)


def _npz_pictures(path: Path) -> Any:
    from var_jax.evaluation.pictures import NpzPictures

    return np.concatenate(list(NpzPictures(path).batches(0, 2)))


def _bulk_file(path: Path) -> Any:
    from var_jax.generation.bulk import NpzFile

    NpzFile(path, np.zeros(3, np.int64), 4, {"seed": 1})


def _bulk_folder(path: Path) -> None:
    path.mkdir(exist_ok=True)
    (path / "settings.json").write_text(json.dumps({"seed": 1, "top_k": [1, 2], "model": {"tokenizer": "a"}}))


def _read_bulk_folder(path: Path) -> Any:
    from var_jax.generation.bulk import PngFolder

    PngFolder(path, np.zeros(3, np.int64), np.arange(3), {"seed": 1, "top_k": (1, 2), "model": {"tokenizer": "a"}})


def _model(path: Path) -> None:
    from tests.interop.checkpoints import drawn_model
    from var_jax.model_directory import save_model

    save_model(path, dataclasses.replace(drawn_model(), class_names=("a", "b", "c", "d", "e")))


def _read_model(path: Path) -> Any:
    from var_jax.model_directory import read_model

    model = read_model(path)
    parts = {part: {"config": repr(config), "params": params} for part, (config, params) in model.parts.items()}
    return parts | {"counts": model.code_counts_SxV, "names": repr(model.class_names)}


_RECORDS, _SIDES = 6, (1, 2)


def _store(path: Path) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    from var_jax.data import token_store

    path.mkdir(exist_ok=True)
    settings = {
        "format": token_store.FORMAT,
        "format_version": token_store.FORMAT_VERSION,
        "tokenizer": {"fingerprint": "f", "pyramid": list(_SIDES), "codebook_size": 16},
        "class_names": ["a", "b"],
        "crops": {"count": 1},
        "dtype": "uint8",
        "pictures": {"train": _RECORDS, "validation": _RECORDS},
    }
    splits = {}
    for split in ("train", "validation"):
        file = path / f"{split}-00000-of-00001.array_record"
        writer = ArrayRecordWriter(str(file), token_store.WRITER_OPTIONS)
        for index in range(_RECORDS):
            writer.write(token_store.encode(np.arange(5) + index, index % 2, index, "uint8"))
        writer.close()
        shard = {"file": file.name, "first": 0, "pictures": _RECORDS, "records": _RECORDS, "sha256": "s"}
        splits[split] = {"pictures": _RECORDS, "crops": 1, "shards": [shard | {"bytes": file.stat().st_size}]}
    (path / "settings.json").write_text(json.dumps(settings))
    (path / "index.json").write_text(json.dumps(settings | {"splits": splits}))


def _read_store(path: Path) -> Any:
    from var_jax.data.token_store import TokenStore

    stores = [TokenStore(split, path) for split in ("train", "validation")]
    return {
        str(number): {"names": " ".join(store.class_names), **{str(i): store[i][0] for i in range(len(store))}}
        for number, store in enumerate(stores)
    }


def _picture(kind: str, **options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        from PIL import Image

        Image.fromarray(np.tile(_PICTURES[0], (8, 8, 1))).save(path, kind, **options)

    return write


def _read_picture(path: Path) -> Any:
    from var_jax.data.images import read_image

    return np.asarray(read_image(path))


FORMATS = {
    "stored.pth": Format(_torch, _tensors, sealed=True, cases=3),
    "packed.pth": Format(_packed_torch, _tensors, sealed=True, cases=2),
    "legacy.pth": Format(_bytes(lambda: legacy_bytes(ARRAYS)), _tensors, cases=2),
    "a.safetensors": Format(_safetensors, _tensors, cases=2),
    "numpy.ckpt": Format(_numpy_pickle, _read_numpy_pickle),
    "parts": Format(_parts, _tensors, ("m.safetensors.index.json",)),
    "statistics.npz": Format(_npz(np.savez, **_STATISTICS), _statistics, sealed=True),
    "packed.npz": Format(_npz(np.savez_compressed, arr_0=_PICTURES), _npz_pictures, sealed=True),
    "bulk.npz": Format(_npz(np.savez, arr_0=_PICTURES, settings=np.asarray('{"seed": 1}')), _bulk_file),
    "bulk": Format(_bulk_folder, _read_bulk_folder, ("settings.json",)),
    "model": Format(_model, _read_model, ("config.json", "model.safetensors"), sealed=True, cases=2),
    "store": Format(
        _store, _read_store, ("index.json", "train-00000-of-00001.array_record", "settings.json"), sealed=True
    ),
    "a.png": Format(_picture("PNG"), _read_picture, sealed=True),
    "a.jpg": Format(_picture("JPEG", quality=90), _read_picture),
}
