"""Lowers training, tokenizing and sampling as a mesh would run them, without data, weights or devices.

Only shapes are used: the state's from `jax.eval_shape`, the batch's from the config, weights from files (LPIPS) from
their network. The lowered function is the one that the training loop jits, with the same shardings and donation.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from var_jax.cpu.backend import backend_for
from var_jax.data.sources import IMAGES, TOKENS
from var_jax.errors import InputError
from var_jax.generation.sampler import generate
from var_jax.generation.settings import Settings
from var_jax.models.baselines import make_transformer
from var_jax.models.net import Net, Nets
from var_jax.models.pictures import encode_pictures
from var_jax.models.presets import IMAGENET_CLASSES
from var_jax.models.shapes import tokenizer_shapes, transformer_shapes
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.models.transformer import TransformerConfig
from var_jax.parallel.mesh import batch_sharding, check_batch, replicated
from var_jax.parallel.rules import placed
from var_jax.pretrained.vgg import STAGES, VGG16
from var_jax.training import build
from var_jax.training_directory import read_any_model

# For a config that counts in epochs; the program depends on it only through constants of schedules.
_STEPS = 100_000


def training_step(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """Lowers the whole training step of `config` on `mesh`, with the discriminator if the config has one.

    Stage 2 encodes pictures with the config's tokenizer (none: the published one's shape), or takes stored tokens if
    `data.store` is set.

    Raises:
      InputError: for a batch or an array that does not divide over the mesh, or a network that has to come from a file.
    """
    total = config.steps or _STEPS
    if config.stage == "tokenizer":
        if config.adversary.kind == "dino":
            raise InputError("config adversary.kind 'dino': its network comes from a file; rehearse with 'patch'")
        task = build.tokenizer_task(config, mesh)
        fixed = {"lpips": _lpips_shapes()} if config.loss.lpips or config.adversary.kind == "vgg" else {}
    else:
        tokenizer = tokenizer_config(config)
        task = build.transformer_task(config, mesh, tokenizer, [str(number) for number in range(IMAGENET_CLASSES)])
        fixed = tokenizer_shapes(tokenizer)
    program = build.make_program(config, mesh, task, total)
    batch = build.batch_shapes(task, config.batch_size, TOKENS if config.data.store else IMAGES)
    return program.lower(fixed, batch, opponent=program.opponent)


def model_config(config: ml_collections.ConfigDict) -> TransformerConfig | TokenizerConfig:
    """The config of the model that a training config trains, for ImageNet's classes."""
    if config.stage == "tokenizer":
        return tokenizer_config(config)
    return build.transformer_config(config, tokenizer_config(config), IMAGENET_CLASSES)


def tokenizer_config(config: ml_collections.ConfigDict) -> TokenizerConfig:
    """The tokenizer that a config trains, or in stage 2 the one that it names; by default the published one."""
    if config.stage == "tokenizer":
        return TokenizerConfig.from_fields(**config.model)
    if config.tokenizer:
        return read_any_model(config.tokenizer).tokenizer_config
    return TokenizerConfig.from_fields(pyramid=512 if config.model.preset.endswith("-s") else 256)


def _lpips_shapes() -> dict[str, Any]:
    """Shapes of LPIPS' weights, as `read_lpips` returns them."""
    picture = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    trunk = jax.eval_shape(VGG16().init, jax.random.key(0), picture)["params"]
    return {"trunk": trunk, "heads": [jax.ShapeDtypeStruct((stage[-1],), jnp.float32) for stage in STAGES]}


def of_rows(what: str, config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, batch: int) -> jax.stages.Lowered:
    """Lowers a program whose `batch` rows are split over `mesh`, while its weights are on every device.

    "tokenize" is the program of `var-jax tokenize` for pictures, "sample" is `generate`, one program from labels to
    pictures, in bfloat16 with guidance.

    Raises:
      InputError: for a batch that does not divide over the mesh.
    """
    check_batch(mesh, batch)
    backend, whole, rows = backend_for(mesh), replicated(mesh), batch_sharding(mesh)
    shape, dtype = tokenizer_config(config), jnp.float32 if what == "tokenize" else jnp.bfloat16
    tokenizer = Net(Tokenizer(shape, dtype, backend=backend), tokenizer_shapes(shape))
    if what == "tokenize":
        images = jax.ShapeDtypeStruct((batch, shape.image_size, shape.image_size, 3), jnp.uint8)
        with jax.set_mesh(mesh):
            return encode_pictures.lower(placed(tokenizer, whole), placed(images, rows))
    transformer = model_config(config)
    model = Nets(tokenizer, Net(make_transformer(transformer, dtype, backend), transformer_shapes(transformer)))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
    settings = jax.eval_shape(lambda: Settings.create(transformer.pyramid))
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    arguments = (placed(model, whole), placed(labels, rows), placed(keys, rows), placed(settings, whole))
    with jax.set_mesh(mesh):
        return generate.lower(*arguments)
