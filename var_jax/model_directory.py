"""The model directory: one readable `config.json` and one `model.safetensors` with every weight.

Each part (tokenizer, transformer) carries a fingerprint of its config and weights, checked on reading,
so that damage is noticed and stored tokens can name the tokenizer that made them; one more covers the
rest: names of classes, origins, counts of code use. Directories of older versions lack that one. A
directory is written whole or not at all. Weights may be stored in float16, at half the size; reading turns them into
float32, and the fingerprints are computed from the float32 values.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from var_jax.errors import InputError, has_control, printable
from var_jax.formats.bucket import local_files, new_directory
from var_jax.formats.description import read_description
from var_jax.formats.safetensors_file import read_safetensors, write_safetensors
from var_jax.formats.small_files import TEXTS, require_fields
from var_jax.models.baselines import transformer_config_from
from var_jax.models.parameters import Params, flatten, unflatten
from var_jax.models.shapes import tokenizer_shapes, transformer_shapes
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.models.transformer import TransformerConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT = "var_jax model directory"
FORMAT_VERSION = 1
_CODE_COUNTS = "statistics/code_counts"
_REST = "fingerprint_of_names_and_counts"
_FIELDS = {"format", "format_version", "source", "class_names", "fingerprints", _REST, "tokenizer", "transformer"}
_BUNDLED = Path(__file__).parent / "bundled_model"


def bundled_model() -> Path:
    """The model directory that comes with the package: a small model that draws ten classes of shapes at 64 px."""
    return _BUNDLED


@dataclasses.dataclass(frozen=True)
class Model:
    """Everything a model directory holds, as numpy arrays.

    Attributes:
      tokenizer_config: the tokenizer's config.
      tokenizer_params: the tokenizer's parameters, float32.
      code_counts_SxV: moving counts of code use per scale.
      transformer_config: the transformer's config, or None if the model is a tokenizer alone.
      transformer_params: the transformer's parameters, float32, or None.
      class_names: names of the transformer's classes by id; empty if the classes have no names.
      source: origin of each part, as free text by part.

    Raises:
      InputError: if transformer and tokenizer do not fit each other.
    """

    tokenizer_config: TokenizerConfig
    tokenizer_params: Params
    code_counts_SxV: np.ndarray
    transformer_config: TransformerConfig | None = None
    transformer_params: Params | None = None
    class_names: tuple[str, ...] = ()
    source: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.transformer_config is not None:
            for name in ("pyramid", "codebook_size", "code_width"):
                ours, theirs = getattr(self.transformer_config, name), getattr(self.tokenizer_config, name)
                if ours != theirs:
                    raise InputError(f"the transformer has {name} {ours}, the tokenizer {theirs}: not a pair")

    @property
    def parts(self) -> dict[str, tuple[dict[str, Any], Params]]:
        """Config (as plain values) and parameters of each part of the model."""
        parts = {"tokenizer": (self.tokenizer_config.to_dict(), self.tokenizer_params)}
        if self.transformer_config is not None and self.transformer_params is not None:
            parts["transformer"] = (self.transformer_config.to_dict(), self.transformer_params)
        return parts

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each part of the model, computed anew."""
        return {part: fingerprint(*values) for part, values in self.parts.items()}


def fingerprint(config: Mapping[str, Any], params: Params) -> str:
    """sha256 (hex) over a part's config and every parameter's name, shape, type and bytes."""
    leaves = [("/".join(path), np.ascontiguousarray(leaf)) for path, leaf in flatten(params).items()]

    def digest(item: tuple[str, np.ndarray]) -> str:
        name, array = item
        head = f"{name} {array.dtype.str} {array.shape} "
        return head + hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()

    with concurrent.futures.ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
        lines = [json.dumps(config, sort_keys=True), *pool.map(digest, leaves)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _fingerprint_of_rest(model: Model) -> str:
    """sha256 (hex) over everything in a model directory that is in no part."""
    about = {"class_names": list(model.class_names), "source": dict(model.source)}
    return fingerprint(about, {"code_counts": model.code_counts_SxV})


def save_model(path: str | os.PathLike[str], model: Model, half: bool = False) -> None:
    """Writes a model directory, local or in a bucket, whole or not at all.

    Args:
      path: the directory.
      model: the model to write.
      half: round the parameters to float16 and store them as such.

    Raises:
      InputError: if `path` is taken or cannot be written, or a parameter is beyond float16.
    """
    if half:
        model = _rounded(model)
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "source": dict(model.source),
        "class_names": list(model.class_names),
        "fingerprints": model.fingerprints,
        _REST: _fingerprint_of_rest(model),
        **{part: values for part, (values, _) in model.parts.items()},
    }
    tensors = {_CODE_COUNTS: model.code_counts_SxV}
    for part, (_, params) in model.parts.items():
        stored = np.float16 if half else None
        tensors |= {"/".join((part, *name)): np.asarray(leaf, stored) for name, leaf in flatten(params).items()}
    with new_directory(path, last=CONFIG_FILE) as folder:
        write_safetensors(folder / WEIGHTS_FILE, tensors, {"format": FORMAT})
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")


def _rounded(model: Model) -> Model:
    """The model with every parameter rounded to the nearest float16 number, kept as float32."""
    rounded: dict[str, Any] = {}
    for part, (_, params) in model.parts.items():
        halves = {}
        for name, leaf in flatten(params).items():
            with np.errstate(over="ignore"):
                halves[name] = np.asarray(leaf, np.float16).astype(np.float32)
            if not np.isfinite(halves[name]).all():
                raise InputError(f"{part} parameter '{'/'.join(name)}': is beyond float16; store float32 instead")
        rounded[f"{part}_params"] = unflatten(halves)
    return dataclasses.replace(model, **rounded)


def read_model(path: str | os.PathLike[str]) -> Model:
    """Reads and checks a model directory, local or in a bucket.

    Raises:
      InputError: naming the part that is missing, unknown, mis-shaped or different from its fingerprint.
    """
    with local_files(path, (CONFIG_FILE, WEIGHTS_FILE)) as folder:
        return _read(folder)


def _read(path: Path) -> Model:
    config = _read_config(path)
    recorded, source = _section(config, "fingerprints", path), _section(config, "source", path)
    tokenizer_config = _part_config(TokenizerConfig.from_dict, config, "tokenizer", path)
    weights = path / WEIGHTS_FILE
    tensors = read_safetensors(weights)
    counts = tensors.pop(_CODE_COUNTS, None)
    shape = (len(tokenizer_config.pyramid), tokenizer_config.codebook_size)
    if counts is None or counts.shape != shape:
        raise InputError(f"{weights}: tensor '{_CODE_COUNTS}' is missing or not of shape {shape}")
    abstract = tokenizer_shapes(tokenizer_config)
    params = _take(tensors, "tokenizer", abstract, weights)
    model = Model(tokenizer_config, params, counts, class_names=_names(config, path / CONFIG_FILE), source=source)
    if "transformer" in config:
        transformer_config = _part_config(transformer_config_from, config, "transformer", path)
        abstract = transformer_shapes(transformer_config)
        params = _take(tensors, "transformer", abstract, weights)
        try:
            model = dataclasses.replace(model, transformer_config=transformer_config, transformer_params=params)
        except InputError as error:
            raise InputError(f"{path / CONFIG_FILE}: {error}") from None
    if tensors:
        raise InputError(f"{weights}: tensor '{min(tensors)}' has no place in the model that {CONFIG_FILE} describes")
    for part, values in model.parts.items():
        if recorded.get(part) != fingerprint(*values):
            raise InputError(f"{path}: config or weights of the {part} changed since they were written; make it anew")
    if _REST in config and config[_REST] != _fingerprint_of_rest(model):
        raise InputError(f"{path}: names of classes or counts of codes changed since they were written; make it anew")
    return model


def _names(config: Mapping[str, Any], file: Path) -> tuple[str, ...]:
    """The names of the classes: none, or one for each, all different and fit to print.

    Raises:
      InputError: naming what is wrong with them.
    """
    names = config.get("class_names", [])
    require_fields({"class_names": names}, file, {"class_names": TEXTS})
    classes = config["transformer"].get("num_classes") if isinstance(config.get("transformer"), dict) else None
    if names and classes is not None and len(names) != classes:
        raise InputError(f"{file}: 'class_names' has {len(names)} names for {classes} classes; copy it again")
    for name, count in Counter(names).items():
        if count > 1 or not name or has_control(name):
            problem = f"is there {count} times" if count > 1 else "is empty, or has a control character"
            raise InputError(f"{file}: the name '{printable(name)}' in 'class_names' {problem}; copy it again")
    return tuple(names)


def _read_config(path: Path) -> dict[str, Any]:
    if not os.path.isdir(path):
        raise InputError(f"{path}: no such model directory (var-jax import makes one)")
    file = path / CONFIG_FILE
    if not os.path.isfile(file):
        raise InputError(f"{path}: not a model directory, it has no {CONFIG_FILE} (var-jax import makes one)")
    config = read_description(file, "the config", FORMAT, FORMAT_VERSION)
    if unknown := sorted(set(config) - _FIELDS):
        raise InputError(f"{file}: has an unknown field '{printable(unknown[0])}'; copy it again, or update var_jax")
    return config


def _section(config: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    if not isinstance(config.get(name), dict):
        raise InputError(f"{path / CONFIG_FILE}: has no section '{name}'")
    return config[name]


def _part_config(read: Callable[[dict[str, Any]], Any], config: dict[str, Any], part: str, path: Path) -> Any:
    values = _section(config, part, path)
    try:
        return read(values)
    except InputError as error:
        raise InputError(f"{path / CONFIG_FILE}: {error}") from None
    except TypeError as error:  # text or a list where a number belongs
        raise InputError(f"{path / CONFIG_FILE}: section '{part}' holds a value of a wrong type ({error})") from None


def _take(tensors: dict[str, np.ndarray], part: str, abstract: Params, file: Path) -> Params:
    """Removes a part's parameters from `tensors` and checks them against the shapes that the config implies."""
    flat = {}
    for name, leaf in flatten(abstract).items():
        key = "/".join((part, *name))
        if key not in tensors:
            raise InputError(f"{file}: tensor '{key}' is missing")
        array = tensors.pop(key)
        if array.shape != leaf.shape:
            raise InputError(f"{file}: tensor '{key}' has shape {array.shape}, {CONFIG_FILE} implies {leaf.shape}")
        flat[name] = array.astype(np.float32) if array.dtype == np.float16 else array
    return unflatten(flat)
