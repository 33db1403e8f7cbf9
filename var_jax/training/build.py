"""From a config to the parts of a run: data sources, the stage's task, the training step, weights to start from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath

from var_jax.cpu.backend import backend_for
from var_jax.data.sources import IMAGES, SPLITS, TOKENS, Source, Spread, make_source
from var_jax.errors import InputError
from var_jax.model_directory import CONFIG_FILE, Model, save_model
from var_jax.models.attention import AttentionFn, cudnn_attention, plain_attention, xla_attention
from var_jax.models.baselines import BaselineConfig, make_transformer, transformer_config_from
from var_jax.models.parameters import Params, flatten, unflatten
from var_jax.models.precision import parameters_for
from var_jax.models.presets import transformer_preset
from var_jax.models.splash import Splash
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.models.transformer_config import TransformerConfig
from var_jax.parallel.rules import Constrain, PerDevice
from var_jax.pretrained.dino import read_dino
from var_jax.pretrained.inception_file import read_inception
from var_jax.pretrained.lpips_file import read_lpips, require_published
from var_jax.pyramid import Pyramid
from var_jax.training.adversary import make_adversary
from var_jax.training.codebook import CodebookOptions
from var_jax.training.optimizer import config_optimizer, warmup_steps
from var_jax.training.progressive import Progressive, ScalePrefix
from var_jax.training.step import StepProgram, TrainState
from var_jax.training.task import Task
from var_jax.training.tokenizer import TokenizerTask
from var_jax.training.transformer import TransformerTask
from var_jax.training_directory import TOKENIZER, read_any_model

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float64": jnp.float64}
# Attention kind -> function, platform that it is for (None: any), compute types it knows.
_ATTENTION = {
    "xla": (xla_attention, None, tuple(DTYPES)),
    "plain": (plain_attention, None, tuple(DTYPES)),
    "splash": (Splash, "tpu", ("float32", "bfloat16")),
    "cudnn": (cudnn_attention, "gpu", ("bfloat16",)),
}


def make_sources(config: ml_collections.ConfigDict) -> tuple[Source, Source]:
    """Training pictures or stored tokens, and those of the validation set that evaluations look at."""
    kind, options = config.data.kind, dict(config.data.options)
    if config.data.store:
        kind, options = TOKENS, {"path": config.data.store}
    if kind == "folder" and not options.get("path"):
        raise InputError(
            "config data.options.path is not set: give --config.data.options.path=DIR, a folder with a sub-folder of "
            "pictures per class"
        )
    if kind == TOKENS and config.stage == "tokenizer":
        raise InputError("config data.store: a tokenizer learns from pictures, leave it None")
    training, validation = (make_source(kind, split, **options) for split in SPLITS)
    return training, Spread(validation, config.evaluate_pictures)


def read_tokenizer(config: ml_collections.ConfigDict) -> Model | None:
    """The tokenizer that a stage-2 config names; None for stage 1.

    Raises:
      InputError: if it is missing or damaged.
    """
    if config.stage != "transformer":
        return None
    if not config.tokenizer:
        raise InputError("config tokenizer is not set: give --config.tokenizer=DIR (a trained or imported tokenizer)")
    return read_any_model(config.tokenizer)


def make_task(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, source: Source, tokenizer: Model | None
) -> Task:
    """The stage that the config names, for the pictures or tokens of `source`.

    Raises:
      InputError: for a type that is switched off, or a tokenizer that did not make the stored tokens.
    """
    if config.dtype == "float64" and not jax.config.jax_enable_x64:
        raise InputError("config dtype 'float64': JAX has it switched off, start with JAX_ENABLE_X64=1")
    if config.stage == "tokenizer":
        return tokenizer_task(config, mesh)
    if source.holds == TOKENS:
        source.require(tokenizer.fingerprints["tokenizer"], config.tokenizer)
    return transformer_task(config, mesh, tokenizer.tokenizer_config, source.class_names)


def fixed_arrays(config: ml_collections.ConfigDict, tokenizer: Model | None) -> Params:
    """The arrays that a step uses and does not learn: stage 2's tokenizer, or networks that judge stage 1.

    Raises:
      InputError: for a network that the config uses without naming its file.
    """
    if tokenizer is not None:
        return parameters_for(DTYPES[config.dtype], tokenizer.tokenizer_params)
    fixed, judge = {}, config.adversary.kind
    if config.lpips_weights or config.loss.lpips:
        fixed["lpips"] = read_lpips(config.lpips_weights)
        require_published(fixed["lpips"], config.lpips_weights)
    if config.inception_weights:
        fixed["inception"] = read_inception(config.inception_weights).params
    if judge == "dino":
        fixed["dino"] = read_dino(config.adversary.dino_weights)
    if judge == "vgg" and "lpips" not in fixed:
        raise InputError("config adversary.kind 'vgg': judges features of LPIPS' VGG16; set lpips_weights to its file")
    return fixed


def tokenizer_task(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> TokenizerTask:
    """Stage 1 as the config has it."""
    dtype, shape = DTYPES[config.dtype], TokenizerConfig.from_fields(**config.model)
    encoder_dtype = DTYPES[config.encoder_dtype] if config.encoder_dtype else None
    learning = Tokenizer(shape, dtype, encoder_dtype, Constrain(mesh), config.remat)
    options = CodebookOptions(**config.codebook)
    return TokenizerTask(shape, config.loss, dtype, options, learning, backend_for(mesh))


def transformer_task(
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh,
    tokenizer: TokenizerConfig,
    class_names: Sequence[str],
) -> TransformerTask:
    """Stage 2 as the config has it, for a tokenizer's tokens."""
    shape, dtype = transformer_config(config, tokenizer, len(class_names)), DTYPES[config.dtype]
    backend = backend_for(mesh, attention(config, mesh))
    return TransformerTask(
        make_transformer(shape, dtype, backend, Constrain(mesh), config.remat),
        Tokenizer(tokenizer, dtype, backend=backend),
        tuple(class_names),
        config.label_smoothing,
        grid_classes=config.sample_classes,
        guidance=config.sample_guidance,
    )


def make_program(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, task: Task, total_steps: int
) -> StepProgram:
    """The training step of a config.

    Raises:
      InputError: for a schedule, a discriminator, a batch or a sharding that cannot be.
    """
    optimizer = config_optimizer(config.optimizer, config.batch_size, total_steps, task.decayed)
    return StepProgram(
        task,
        optimizer,
        mesh,
        tuple((pattern, tuple(axes)) for pattern, axes in config.sharding),
        config.batch_size,
        config.seed,
        config.accumulate,
        config.ema_decay,
        make_adversary(config, task, DTYPES[config.dtype], total_steps, optimizer.learning_rate),
    )


def batch_shapes(task: Task, size: int, holds: str) -> dict[str, jax.ShapeDtypeStruct]:
    """A training batch's shapes, of pictures or of stored tokens."""
    batch = {"labels": jax.ShapeDtypeStruct((size,), jnp.int32)}
    if holds == TOKENS:
        return batch | {TOKENS: jax.ShapeDtypeStruct((size, task.config.pyramid.length), jnp.int32)}
    return batch | {IMAGES: jax.ShapeDtypeStruct((size, task.image_size, task.image_size, 3), jnp.uint8)}


def make_progressive(
    config: ml_collections.ConfigDict, pyramid: Pyramid, total: int
) -> Callable[[int], ScalePrefix | None]:
    """The scales that take part in a step; None for all.

    Raises:
      InputError: for a schedule that cannot be.
    """
    if config.stage != "transformer" or config.progressive.until == 0:
        return lambda step: None
    return Progressive(pyramid, total, warmup_steps(config.optimizer, total), **config.progressive).at


def attention(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> AttentionFn:
    """The attention kind that the config names, for the devices of `mesh`.

    Raises:
      InputError: for one that cannot run there or in the config's type.
    """
    function, platform, dtypes = _ATTENTION[config.attention]
    found = mesh.devices.flat[0].platform
    if platform and found != platform:
        raise InputError(
            f"config attention '{config.attention}' is for devices of kind {platform}, these are {found}: "
            "take --config.attention=xla"
        )
    if config.dtype not in dtypes:
        raise InputError(
            f"config attention '{config.attention}' computes in {' or '.join(dtypes)}, not in {config.dtype}: "
            "take --config.attention=xla"
        )
    if function is Splash:
        function = Splash(*config.attention_blocks)
    return PerDevice(mesh, function) if platform else function


def transformer_config(
    config: ml_collections.ConfigDict, tokenizer: TokenizerConfig, num_classes: int
) -> TransformerConfig:
    """The preset, with the fields that the config sets itself."""
    fields = dict(config.model)
    preset = transformer_preset(fields.pop("preset"), tokenizer, num_classes).to_dict()
    if unknown := sorted(set(fields) - {field.name for field in dataclasses.fields(BaselineConfig)}):
        raise InputError(f"config model.{unknown[0]}: is no field of a transformer")
    return transformer_config_from(preset | {name: value for name, value in fields.items() if value is not None})


def keep_tokenizer(tokenizer: Model, workdir: epath.Path, path: str) -> None:
    """Copies the tokenizer of a transformer's run, read from `path`, into its directory, where sampling finds it.

    Raises:
      InputError: if the run has another one.
    """
    if (workdir / TOKENIZER / CONFIG_FILE).exists():
        own = read_any_model(workdir / TOKENIZER)
        if own.fingerprints["tokenizer"] != tokenizer.fingerprints["tokenizer"]:
            raise InputError(
                f"{workdir}: this run was begun on another tokenizer than {path}: "
                "give that one again, or choose another --workdir"
            )
        return
    if jax.process_index() == 0:
        source, counts = tokenizer.source, tokenizer.code_counts_SxV
        alone = Model(tokenizer.tokenizer_config, tokenizer.tokenizer_params, counts, source=source)
        save_model(workdir / TOKENIZER, alone)


def starting_weights(config: ml_collections.ConfigDict, params: Params) -> Params:
    """The weights of `config.init_from` that a fresh run takes over: arrays of a name and shape that it has too.

    Arrays of another shape (the class table of another class count, say) are left out.

    Args:
      config: of the run; without `init_from` nothing is taken over.
      params: the run's parameters, or their shapes and types.

    Returns:
      numpy arrays by path.

    Raises:
      InputError: if there is no such model, or most of it does not fit.
    """
    if not config.init_from:
        return {}
    model = read_any_model(config.init_from)
    given = model.tokenizer_params if config.stage == "tokenizer" else model.transformer_params
    if given is None:
        raise InputError(f"init_from {config.init_from}: has a tokenizer only, no transformer to start from")
    given, own = flatten(given), flatten(params)
    taken = {path: leaf for path, leaf in own.items() if path in given and given[path].shape == leaf.shape}
    missing = len(own) - len(taken)
    if not taken or missing > len(taken):
        raise InputError(
            f"init_from {config.init_from}: {missing} of {len(own)} arrays differ in shape, not this model"
        )
    return {path: np.asarray(given[path], leaf.dtype) for path, leaf in taken.items()}


def start_from(taken: Params, state: TrainState) -> TrainState:
    """The state with the weights that `starting_weights` took over, also as the first moving average."""
    own = flatten(state.params)
    placed = {path: jax.device_put(taken[path], leaf.sharding) for path, leaf in own.items() if path in taken}
    params = unflatten(own | placed)
    ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
    return state._replace(params=params, ema=ema)
