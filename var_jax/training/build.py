"""From a config to the things a run needs: data sources, the stage's task, weights to start from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath

from var_jax.data.sources import SPLITS, TOKENS, Source, Spread, make_source
from var_jax.errors import InputError
from var_jax.model_directory import CONFIG_FILE, Model, save_model
from var_jax.models.attention import AttentionFn, cudnn_attention, plain_attention, xla_attention
from var_jax.models.parameters import Params, flatten, unflatten
from var_jax.models.presets import transformer_preset
from var_jax.models.recompute import policies, policy
from var_jax.models.splash import Splash
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.models.transformer import Transformer, TransformerConfig
from var_jax.parallel.rules import Constrain, PerDevice
from var_jax.pretrained.inception_file import read_inception
from var_jax.pretrained.lpips_file import read_lpips, require_published
from var_jax.pyramid import Pyramid
from var_jax.training.adversary import Adversary, make_adversary
from var_jax.training.codebook import CodebookOptions
from var_jax.training.optimizer import Schedule, warmup_steps
from var_jax.training.progressive import Progressive, Stage
from var_jax.training.state import TrainState
from var_jax.training.tokenizer import TokenizerTask
from var_jax.training.transformer import TransformerTask
from var_jax.training_directory import TOKENIZER, read_any_model

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float64": jnp.float64}
# Attention kind -> platform it is for (None: any), compute types it knows.
_ATTENTION = {
    "xla": (None, tuple(DTYPES)),
    "plain": (None, tuple(DTYPES)),
    "splash": ("tpu", ("float32", "bfloat16")),
    "cudnn": ("gpu", ("bfloat16",)),
}


def make_sources(config: ml_collections.ConfigDict) -> tuple[Source, Source]:
    """Training pictures or stored tokens, and those of the validation set that evaluations look at."""
    kind, options = config.data.kind, dict(config.data.options)
    if config.data.store:
        kind, options = TOKENS, {"path": config.data.store}
    if kind == TOKENS and config.stage == "tokenizer":
        raise InputError("config data.store: a tokenizer learns from pictures, leave it None")
    training, validation = (make_source(kind, split, **options) for split in SPLITS)
    return training, Spread(validation, config.evaluate_pictures)


def make_task(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, source: Source
) -> TokenizerTask | TransformerTask:
    """The stage that the config names, for what `source` holds.

    Raises:
      InputError: for an unknown stage or type, or a tokenizer that is missing or did not make the stored tokens.
    """
    _dtype(config.dtype, "dtype")
    if config.dtype == "float64" and not jax.config.jax_enable_x64:
        raise InputError("config dtype 'float64': JAX has it switched off, start with JAX_ENABLE_X64=1")
    if config.stage == "tokenizer":
        task = tokenizer_task(config, _lpips_params(config), Constrain(mesh))
        if config.inception_weights:
            task.fixed["inception"] = read_inception(config.inception_weights).params
        return task
    if config.stage != "transformer":
        raise InputError(f"config stage '{config.stage}': expected tokenizer or transformer")
    tokenizer, class_names = _tokenizer(config), source.class_names
    if source.holds == TOKENS:
        source.require(tokenizer.fingerprints["tokenizer"], config.tokenizer)
    module = transformer(config, tokenizer.tokenizer_config, len(class_names), Constrain(mesh))
    return TransformerTask(
        module,
        tokenizer.tokenizer_config,
        tokenizer.tokenizer_params,
        class_names,
        config.label_smoothing,
        grid_classes=config.sample_classes,
        guidance=config.sample_guidance,
    )


def tokenizer_task(
    config: ml_collections.ConfigDict, lpips_params: Params | None, constrain: Constrain
) -> TokenizerTask:
    """Stage 1 as the config has it, with LPIPS' weights or without."""
    dtype, shape = DTYPES[config.dtype], TokenizerConfig.from_fields(**config.model)
    encoder_dtype = None
    if config.encoder_dtype:
        encoder_dtype = _dtype(config.encoder_dtype, "encoder_dtype")
    training = Tokenizer(shape, dtype, encoder_dtype, constrain, _remat(config), fast_convolution=False)
    return TokenizerTask(shape, config.loss, dtype, lpips_params, CodebookOptions(**config.codebook), training)


def _dtype(name: str, field: str) -> jnp.dtype:
    if name not in DTYPES:
        raise InputError(f"config {field} '{name}': expected bfloat16, float32 or float64")
    return DTYPES[name]


def _remat(config: ml_collections.ConfigDict) -> str | None:
    """The config's policy of recomputation, of which there is one by that name."""
    if config.remat is not None:
        try:
            policy(config.remat)
        except KeyError:
            known = ", ".join(policies())
            raise InputError(
                f"config remat '{config.remat}': no such policy, expected None or one of {known}"
            ) from None
    return config.remat


def _lpips_params(config: ml_collections.ConfigDict) -> Params | None:
    """LPIPS' weights where the config names them; asked for and not named is an error that says what to get."""
    if not config.lpips_weights and not config.loss.lpips:
        return None
    params = read_lpips(config.lpips_weights)
    require_published(params, config.lpips_weights)
    return params


def make_opponent(
    config: ml_collections.ConfigDict, task: TokenizerTask | TransformerTask, total: int, rate: Schedule
) -> Adversary | None:
    """The discriminator of a stage-1 config that asks for one; `rate` is the tokenizer's, by step.

    Raises:
      InputError: for a discriminator that cannot be.
    """
    return make_adversary(config, task, DTYPES[config.dtype], total, rate)


def make_stages(config: ml_collections.ConfigDict, pyramid: Pyramid, total: int) -> Callable[[int], Stage | None]:
    """The stage of progressive training that a step belongs to; None means that all scales take part.

    Raises:
      InputError: for a schedule that cannot be.
    """
    if config.stage != "transformer" or config.progressive.until == 0:
        return lambda step: None
    return Progressive(pyramid, total, warmup_steps(config.optimizer, total), **config.progressive).stage


def _tokenizer(config: ml_collections.ConfigDict) -> Model:
    if not config.tokenizer:
        raise InputError("config tokenizer is not set: give --config.tokenizer=DIR (a trained or imported tokenizer)")
    return read_any_model(config.tokenizer)


def transformer(
    config: ml_collections.ConfigDict, tokenizer: TokenizerConfig, num_classes: int, constrain: Constrain
) -> Transformer:
    """The stage-2 module that the config names, for a tokenizer's tokens."""
    shape = transformer_config(config, tokenizer, num_classes)
    kind = attention(config, constrain.mesh)
    return Transformer(shape, DTYPES[config.dtype], kind, constrain, _remat(config))


def attention(config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh) -> AttentionFn:
    """The attention kind that the config names, for the devices of `mesh`.

    Raises:
      InputError: for an unknown kind, or one that cannot run there or in the config's type.
    """
    if config.attention not in _ATTENTION:
        raise InputError(f"config attention '{config.attention}': expected one of {', '.join(_ATTENTION)}")
    platform, dtypes = _ATTENTION[config.attention]
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
    if config.attention == "splash":
        return PerDevice(mesh, Splash(*config.attention_blocks))
    if config.attention == "cudnn":
        return PerDevice(mesh, cudnn_attention)
    return plain_attention if config.attention == "plain" else xla_attention


def transformer_config(
    config: ml_collections.ConfigDict, tokenizer: TokenizerConfig, num_classes: int
) -> TransformerConfig:
    """The preset, with the fields that the config sets itself."""
    fields = dict(config.model)
    preset = transformer_preset(fields.pop("preset"), tokenizer, num_classes).to_dict()
    if unknown := sorted(set(fields) - {field.name for field in dataclasses.fields(TransformerConfig)}):
        raise InputError(f"config model.{unknown[0]}: is no field of a transformer")
    return TransformerConfig.from_dict(preset | {name: value for name, value in fields.items() if value is not None})


def keep_tokenizer(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """Copies the tokenizer of a transformer's run into its directory, where sampling finds it."""
    if config.stage != "transformer":
        return
    model = _tokenizer(config)
    if (workdir / TOKENIZER / CONFIG_FILE).exists():
        kept = read_any_model(workdir / TOKENIZER)
        if kept.fingerprints["tokenizer"] != model.fingerprints["tokenizer"]:
            raise InputError(
                f"{workdir}: this run was begun on another tokenizer than {config.tokenizer}: "
                "give that one again, or choose another --workdir"
            )
        return
    if jax.process_index() == 0:
        alone = Model(model.tokenizer_config, model.tokenizer_params, model.code_counts_SxV, source=model.source)
        save_model(workdir / TOKENIZER, alone)


def starting_weights(config: ml_collections.ConfigDict, params: Params) -> Params:
    """The weights of `config.init_from` that a fresh run takes over: arrays of a name and shape that it has too.

    What has another shape (the class table of another class count, say) is left out.

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
