"""A config's training step, and what tokenizes and samples, as a mesh would run them: without data, weights or devices.

Everything is shapes: the state by `jax.eval_shape`, the batch by the config, weights from files (LPIPS') by their
network. What is lowered is the function that the training loop jits, with the same shardings and donation.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from var_jax.errors import InputError
from var_jax.generation.sampler import controls, generate
from var_jax.models.pictures import encode_pictures
from var_jax.models.presets import IMAGENET_CLASSES
from var_jax.models.shapes import tokenizer_shapes, transformer_shapes
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.models.transformer import Transformer, TransformerConfig
from var_jax.parallel.mesh import batch_sharding, check_batch
from var_jax.parallel.rules import Constrain, shardings
from var_jax.pretrained.vgg import STAGES, VGG16
from var_jax.training import build
from var_jax.training.adversary import make_adversary
from var_jax.training.optimizer import make_config_optimizer
from var_jax.training.state import make_step, new_state
from var_jax.training.tokenizer import TokenizerTask
from var_jax.training.transformer import TransformerTask
from var_jax.training_directory import read_any_model

# For a config that trains by epochs; a program does not depend on it but through constants of schedules.
_STEPS = 100_000


def training_step(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, num_classes: int = IMAGENET_CLASSES
) -> jax.stages.Lowered:
    """The whole step of `config` on `mesh`, lowered; a discriminator takes part where the config has one.

    Stage 2 encodes pictures with the config's tokenizer (none: the published one's shape), or takes stored tokens where
    `data.store` is set.

    Raises:
      InputError: for a batch or an array that does not divide over the mesh, or a network that only a file can give.
    """
    if config.batch_size % config.accumulate:
        raise InputError(f"batch_size {config.batch_size} does not divide by accumulate {config.accumulate}")
    check_batch(mesh, config.batch_size // config.accumulate, "batch size (of a micro-batch)")
    if config.stage == "tokenizer":
        sees_vgg = config.loss.lpips or config.adversary.kind == "vgg"
        task = build.tokenizer_task(config, _lpips_shapes() if sees_vgg else None, Constrain(mesh))
    else:
        task = _transformer_task(config, mesh, num_classes)
    total = config.steps or _STEPS
    rate, optimizer = make_config_optimizer(config.optimizer, config.batch_size, total, task.decayed)
    if config.stage == "tokenizer" and config.adversary.kind == "dino":
        raise InputError("config adversary.kind 'dino': its network comes from a file; rehearse with 'patch'")
    opponent = make_adversary(config, task, build.DTYPES[config.dtype], total, rate)
    key = jax.random.key(0)
    fresh = lambda: new_state(
        task.init(key), optimizer, config.ema_decay > 0, task.new_counts(), opponent and opponent.init(key)
    )
    shapes = jax.eval_shape(fresh)
    places = shardings(mesh, config.sharding, shapes)
    shared = {"post_update": task.post_update, "rate": rate}
    step = make_step(task.loss, optimizer, 0, config.accumulate, config.ema_decay, **shared)
    jitted = jax.jit(step, donate_argnums=0, static_argnums=3, out_shardings=(places, None))
    with jax.set_mesh(mesh):
        return jitted.lower(
            _placed(shapes, places),
            _placed(task.fixed, _everywhere(mesh)),
            _placed(_batch(config, task), batch_sharding(mesh)),
            opponent,
        )


def _transformer_task(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, num_classes: int) -> TransformerTask:
    tokenizer = tokenizer_config(config)
    module = build.transformer(config, tokenizer, num_classes, Constrain(mesh))
    task = TransformerTask(module, tokenizer, {}, [str(number) for number in range(num_classes)])
    task.fixed = tokenizer_shapes(tokenizer)
    return task


def model_config(config: ml_collections.ConfigDict) -> TransformerConfig | TokenizerConfig:
    """What a config trains, on ImageNet's classes."""
    if config.stage == "tokenizer":
        return tokenizer_config(config)
    return build.transformer_config(config, tokenizer_config(config), IMAGENET_CLASSES)


def tokenizer_config(config: ml_collections.ConfigDict) -> TokenizerConfig:
    """The tokenizer that a config trains, or, of stage 2, that it names; where it names none, the published one."""
    if config.stage == "tokenizer":
        return TokenizerConfig.from_fields(**config.model)
    if config.tokenizer:
        return read_any_model(config.tokenizer).tokenizer_config
    return TokenizerConfig.from_fields(pyramid=512 if config.model.preset.endswith("-s") else 256)


def _lpips_shapes() -> dict[str, Any]:
    """LPIPS' weights by shape, as `read_lpips` gives them."""
    picture = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    trunk = jax.eval_shape(VGG16().init, jax.random.key(0), picture)["params"]
    return {"trunk": trunk, "heads": [jax.ShapeDtypeStruct((stage[-1],), jnp.float32) for stage in STAGES]}


def _batch(config: ml_collections.ConfigDict, task: TokenizerTask | TransformerTask) -> dict[str, Any]:
    size, side = config.batch_size, task.image_size
    batch = {"labels": jax.ShapeDtypeStruct((size,), jnp.int32)}
    if config.data.store:
        return batch | {"tokens": jax.ShapeDtypeStruct((size, task.config.pyramid.length), jnp.int32)}
    return batch | {"images": jax.ShapeDtypeStruct((size, side, side, 3), jnp.uint8)}


def _placed(tree: Any, places: Any) -> Any:
    """Shapes with shardings; one sharding for all, or a tree of them."""
    if isinstance(places, jax.sharding.Sharding):
        places = jax.tree.map(lambda _: places, tree)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, places)


def tokenizing(config: TokenizerConfig, mesh: jax.sharding.Mesh, batch: int) -> jax.stages.Lowered:
    """What `var-jax tokenize` runs on a batch of pictures, split over `mesh`.

    Raises:
      InputError: for a batch that does not divide over the mesh.
    """
    check_batch(mesh, batch)
    tokenizer, side = Tokenizer(config), config.image_size
    images = _placed(jax.ShapeDtypeStruct((batch, side, side, 3), jnp.uint8), batch_sharding(mesh))
    with jax.set_mesh(mesh):
        return encode_pictures.lower(tokenizer, _placed(tokenizer_shapes(config), _everywhere(mesh)), images)


def sampling(
    transformer: TransformerConfig, tokenizer: TokenizerConfig, mesh: jax.sharding.Mesh, batch: int
) -> jax.stages.Lowered:
    """`generate`, one program from labels to pictures, in bfloat16 with guidance; `batch` pictures over `mesh`.

    Raises:
      InputError: for a batch that does not divide over the mesh.
    """
    check_batch(mesh, batch)
    modules = Tokenizer(tokenizer, jnp.bfloat16), Transformer(transformer, jnp.bfloat16)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
    settings = jax.eval_shape(lambda: controls(transformer.pyramid, 1.5, 900, 0.96))
    whole, rows = _everywhere(mesh), batch_sharding(mesh)
    arguments = (
        _placed(tokenizer_shapes(tokenizer), whole),
        _placed(transformer_shapes(transformer), whole),
        _placed(jax.ShapeDtypeStruct((batch,), jnp.int32), rows),
        _placed(keys, rows),
        _placed(settings, whole),
    )
    with jax.set_mesh(mesh):
        return generate.lower(*modules, *arguments, guided=True, smooth=False)


def _everywhere(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    return jax.sharding.NamedSharding(mesh, jax.P())
