"""The model directory, and the object that notebooks hold.

A model directory is one readable `config.json` and one `model.safetensors` with every weight. Each
part (tokenizer, transformer) carries a fingerprint of its config and weights, checked on loading, so
that a damaged file is noticed and stored tokens can name the tokenizer that made them.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_directory
from var_jax.formats.safetensors_file import read_safetensors, write_safetensors
from var_jax.interop.names import Params, flatten, unflatten
from var_jax.interop.tokenizer import abstract_params as abstract_tokenizer_params
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT = "var_jax model directory"
FORMAT_VERSION = 1
_CODE_COUNTS = "statistics/code_counts"


@dataclasses.dataclass(frozen=True)
class Model:
    """Everything a model directory holds, as numpy arrays.

    Attributes:
      tokenizer_config: what the tokenizer is.
      tokenizer_params: its parameters, float32.
      code_counts_SxV: moving counts of code use per scale.
      source: where each part came from, free text by part.
    """

    tokenizer_config: TokenizerConfig
    tokenizer_params: Params
    code_counts_SxV: np.ndarray
    source: Mapping[str, str] = dataclasses.field(default_factory=dict)


def fingerprint(config: Mapping[str, Any], params: Params) -> str:
    """sha256 (hex) over a part's config and every parameter's name, shape, type and bytes."""
    leaves = [("/".join(path), np.ascontiguousarray(leaf)) for path, leaf in flatten(params).items()]

    def digest(item: tuple[str, np.ndarray]) -> str:
        name, array = item
        head = f"{name} {array.dtype.str} {array.shape} "
        return head + hashlib.sha256(array.reshape(-1).view(np.uint8)).hexdigest()

    with concurrent.futures.ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
        lines = [json.dumps(config, sort_keys=True), *pool.map(digest, leaves)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def save_model(path: str | os.PathLike[str], model: Model) -> None:
    """Writes a model directory, whole or not at all.

    Raises:
      InputError: if `path` is taken or cannot be written.
    """
    tokenizer = model.tokenizer_config.to_dict()
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "source": dict(model.source),
        "fingerprints": {"tokenizer": fingerprint(tokenizer, model.tokenizer_params)},
        "tokenizer": tokenizer,
    }
    tensors = {"/".join(("tokenizer", *name)): leaf for name, leaf in flatten(model.tokenizer_params).items()}
    tensors[_CODE_COUNTS] = model.code_counts_SxV
    with atomic_directory(path) as folder:
        write_safetensors(folder / WEIGHTS_FILE, tensors, {"format": FORMAT})
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")


def read_model(path: str | os.PathLike[str]) -> Model:
    """Reads and checks a model directory.

    Raises:
      InputError: naming what is missing, unknown, mis-shaped or not as its fingerprint says.
    """
    path = Path(path)
    config = _read_config(path)
    weights = path / WEIGHTS_FILE
    tensors = read_safetensors(weights)
    tokenizer_config = TokenizerConfig.from_dict(_field(config, "tokenizer", path))
    counts = tensors.pop(_CODE_COUNTS, None)
    params = _part(tensors, "tokenizer", abstract_tokenizer_params(tokenizer_config), weights)
    if tensors:
        raise InputError(f"{weights}: tensor '{min(tensors)}' has no place in the model that {CONFIG_FILE} describes")
    found = fingerprint(tokenizer_config.to_dict(), params)
    if _field(config, "fingerprints", path).get("tokenizer") != found:
        raise InputError(f"{path}: config or weights of the tokenizer changed since they were written; import it again")
    shape = (len(tokenizer_config.pyramid), tokenizer_config.codebook_size)
    if counts is None or counts.shape != shape:
        raise InputError(f"{weights}: tensor '{_CODE_COUNTS}' is missing or not of shape {shape}")
    return Model(tokenizer_config, params, counts, config.get("source", {}))


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise InputError(f"{path}: no such model directory (var-jax import makes one)")
    file = path / CONFIG_FILE
    if not file.is_file():
        raise InputError(f"{path}: not a model directory, it has no {CONFIG_FILE} (var-jax import makes one)")
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as JSON ({error})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{file}: is not the config of a {FORMAT}")
    if config.get("format_version") != FORMAT_VERSION:
        version = config.get("format_version")
        raise InputError(f"{file}: format version {version}, this var_jax reads version {FORMAT_VERSION}; update it")
    return config


def _field(config: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    if not isinstance(config.get(name), dict):
        raise InputError(f"{path / CONFIG_FILE}: has no section '{name}'")
    return config[name]


def _part(tensors: dict[str, np.ndarray], part: str, abstract: Params, file: Path) -> Params:
    """Takes a part's parameters out of `tensors`, checked against the shapes its config implies."""
    flat = {}
    for name, leaf in flatten(abstract).items():
        key = "/".join((part, *name))
        if key not in tensors:
            raise InputError(f"{file}: tensor '{key}' is missing")
        array = tensors.pop(key)
        if array.shape != leaf.shape:
            raise InputError(f"{file}: tensor '{key}' has shape {array.shape}, {CONFIG_FILE} implies {leaf.shape}")
        flat[name] = array
    return unflatten(flat)


def load(path: str | os.PathLike[str], dtype: Any = None) -> Bundle:
    """Loads a model directory onto the default device.

    Args:
      path: the directory.
      dtype: compute type of decoder and transformer; None is float32 on CPU and bfloat16 on TPU and
        GPU. Parameters, the tokenizer's encoder and its quantizer are float32 whatever it is.

    Raises:
      InputError: if the directory is not a whole model directory.
    """
    if dtype is None:
        dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    model = read_model(path)
    return Bundle(
        tokenizer=Tokenizer(model.tokenizer_config, dtype),
        tokenizer_params=jax.device_put(model.tokenizer_params),
    )


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A model ready to be used: modules and parameters on the device.

    Attributes:
      tokenizer: the tokenizer module, with its compute type.
      tokenizer_params: its parameters.
    """

    tokenizer: Tokenizer
    tokenizer_params: Params

    def encode(self, images: np.ndarray | jax.Array) -> jax.Array:
        """Pictures -> tokens [B, L] int32, scales coarse to fine.

        Args:
          images: [B, H, W, 3] uint8, or float in [0, 1]; H = W = `tokenizer.config.image_size`.

        Raises:
          InputError: for another shape, type or range.
        """
        size = self.tokenizer.config.image_size
        shape, kind = np.shape(images), np.dtype(getattr(images, "dtype", float))
        if len(shape) != 4 or shape[1:] != (size, size, 3):
            raise InputError(f"images of shape {shape}: expected [B, {size}, {size}, 3]")
        if kind != np.uint8:
            if not jnp.issubdtype(kind, jnp.floating):
                raise InputError(f"images of type {kind}: expected uint8, or float in [0, 1]")
            low, high = float(jnp.min(images)), float(jnp.max(images))
            if not (low >= 0.0 and high <= 1.0):
                raise InputError(f"float images range from {low:g} to {high:g}: expected [0, 1]")
        return _encode(self.tokenizer, self.tokenizer_params, jnp.asarray(images))

    def decode(self, tokens_BxL: np.ndarray | jax.Array, scales: int | None = None) -> jax.Array:
        """Tokens -> pictures [B, H, W, 3] float32 in [0, 1], from all scales or the first `scales`.

        Raises:
          InputError: for another length, a token that is no code, or a number of scales out of range.
        """
        config = self.tokenizer.config
        shape, total = np.shape(tokens_BxL), len(config.pyramid)
        if len(shape) != 2 or shape[1] != config.pyramid.length:
            raise InputError(f"tokens of shape {shape}: expected [B, {config.pyramid.length}]")
        if scales is not None and not 1 <= scales <= total:
            raise InputError(f"scales {scales}: expected 1 to {total}")
        tokens_BxL = jnp.asarray(tokens_BxL)
        if not jnp.issubdtype(tokens_BxL.dtype, jnp.integer):
            raise InputError(f"tokens of type {tokens_BxL.dtype}: expected integers")
        low, high = int(tokens_BxL.min()), int(tokens_BxL.max())
        if low < 0 or high >= config.codebook_size:
            raise InputError(f"tokens range from {low} to {high}: the codebook has 0 to {config.codebook_size - 1}")
        return _decode(self.tokenizer, self.tokenizer_params, tokens_BxL, total if scales is None else scales)


@functools.partial(jax.jit, static_argnums=0)
def _encode(tokenizer: Tokenizer, params: Params, images: jax.Array) -> jax.Array:
    x = images.astype(jnp.float32)
    x = x / 255.0 if images.dtype == jnp.uint8 else x
    return tokenizer.apply({"params": params}, 2.0 * x - 1.0, method="encode")


@functools.partial(jax.jit, static_argnums=0)
def _decode(tokenizer: Tokenizer, params: Params, tokens_BxL: jax.Array, scales: jax.Array) -> jax.Array:
    return (tokenizer.apply({"params": params}, tokens_BxL, scales, method="decode") + 1.0) / 2.0
