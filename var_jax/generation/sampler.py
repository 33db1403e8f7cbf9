"""Next-scale sampling: scales, guidance, filtering, draw, and the running sum, in one XLA program.

`sample_scales` is the loop. It knows the transformer only as a function from a scale's inputs to its
logits, so it can be tested with a fake one. `generate` puts the real network, the loop and the
decoder under one `jit`: labels, keys and every number a user turns are traced, so that changing them
compiles nothing; only guidance on or off and the smooth variant are decided at compile time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from var_jax.errors import InputError
from var_jax.generation.filtering import draw, filter_logits
from var_jax.generation.guidance import LINEAR, Schedule, guide
from var_jax.generation.raster import sample_tokens
from var_jax.models.inputs import CUMULATIVE
from var_jax.models.parameters import Params
from var_jax.models.pictures import to_unit
from var_jax.models.quantizer import Quantizer
from var_jax.models.tokenizer import Tokenizer
from var_jax.models.transformer import Transformer, new_cache
from var_jax.pyramid import Pyramid


class Controls(NamedTuple):
    """The numbers a user turns, one of each a scale; all traced.

    Attributes:
      guidance_S: t in (1 + t) cond - t uncond; 0 is none.
      top_k_S: int32; 0 keeps all.
      top_p_S: 0 keeps all.
      temperature_S: divides the guided logits before filtering; above 0.
    """

    guidance_S: jax.Array
    top_k_S: jax.Array
    top_p_S: jax.Array
    temperature_S: jax.Array


class Kept(NamedTuple):
    """Positions whose tokens are given instead of drawn, which is all that editing is.

    Attributes:
      keep_BxL: bool; where False the token is drawn as ever.
      tokens_BxL: the given tokens, int32, as the reference's editing has them; or None with
      features_BxhxwxC: float32, a map that kept tokens tell. Each scale is told what the scales before it have left
        untold, drawn ones included, as Algorithm 1 does. Given tokens in their place would tell what *their own*
        coarser scales left, and be wrong wherever something drawn reaches.
    """

    keep_BxL: jax.Array
    tokens_BxL: jax.Array | None = None
    features_BxhxwxC: jax.Array | None = None


class Sampled(NamedTuple):
    """What the loop leaves behind; what nobody uses of it costs nothing.

    Attributes:
      tokens_BxL: int32.
      f_hat_BxhxwxC: the running sum after the last scale, ready for the decoder.
      logits_BxLxV: guided logits before temperature and filtering.
      growth_SxBxhxwxC: the running sum after each scale.
    """

    tokens_BxL: jax.Array
    f_hat_BxhxwxC: jax.Array
    logits_BxLxV: jax.Array
    growth_SxBxhxwxC: jax.Array


# (state, scale k, codes [B, l_k, C] so far at that scale, or None at the first) -> (logits, state).
# Under guidance the logits have 2B rows that alternate with class, without class.
NextLogits = Callable[[Any, int, jax.Array | None], tuple[jax.Array, Any]]


def controls(
    pyramid: Pyramid,
    guidance: jax.Array | float = 0.0,
    top_k: jax.Array | int = 0,
    top_p: jax.Array | float = 0.0,
    temperature: jax.Array | float = 1.0,
    schedule: Schedule = LINEAR,
) -> Controls:
    """A strength of guidance laid out by its schedule; of the others one number for every scale, or [S]."""
    everywhere = lambda value, dtype: jnp.broadcast_to(jnp.asarray(value, dtype), (len(pyramid),))
    return Controls(
        schedule.strengths(guidance, pyramid),
        everywhere(top_k, jnp.int32),
        everywhere(top_p, jnp.float32),
        everywhere(temperature, jnp.float32),
    )


def picture_keys(key: jax.Array, batch: int) -> jax.Array:
    """[B] keys: a scalar key folded with the row index; an array of keys as it is."""
    if key.ndim == 0:
        return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(batch))
    return key


def sample_scales(
    next_logits: NextLogits,
    state: Any,
    quantizer: Quantizer,
    keys_B: jax.Array,
    settings: Controls,
    guided: bool,
    smooth: bool,
    kept: Kept | None = None,
    inputs_are: str = CUMULATIVE,
) -> Sampled:
    """Draws every scale, coarse to fine.

    Args:
      next_logits: the transformer as a function.
      state: what it starts from (its cache).
      quantizer: bound to its parameters.
      keys_B: one key a picture; a picture depends on its own key alone.
      settings: see `Controls`.
      guided: whether `next_logits` returns pairs of rows.
      smooth: instead of the drawn code, a Gumbel-softmax mixture of codes over the filtered logits,
        sharper at finer scales; for looks only.
      kept: tokens that are given instead of drawn; None draws all.
      inputs_are: what a scale's inputs are made of, see `models.inputs`.
    """
    pyramid = quantizer.pyramid
    f_hat, tokens, all_logits, growth, inputs = 0.0, [], [], [], None
    untold = None if kept is None else kept.features_BxhxwxC
    for k in range(len(pyramid)):
        with jax.named_scope(f"scale_{k}"):
            logits, state = next_logits(state, k, inputs)
            logits = guide(logits, settings.guidance_S[k]) if guided else logits
            all_logits.append(logits)
            logits = filter_logits(logits / settings.temperature_S[k], settings.top_k_S[k], settings.top_p_S[k])
            keys = jax.vmap(lambda key, k=k: jax.random.fold_in(key, k))(keys_B)
            tokens.append(draw(keys, logits))
            if smooth:
                codes = _smooth_codes(keys, logits, pyramid.ratio(k), quantizer.codebook)
            else:
                codes = quantizer.embed(tokens[-1])
            if kept is not None:
                keep, given = _given(kept, quantizer, untold, k)
                tokens[-1] = jnp.where(keep, given, tokens[-1])
                codes = jnp.where(keep[..., None], quantizer.embed(given), codes)
            told = quantizer.contribution(codes, k)
            f_hat, untold = f_hat + told, None if untold is None else untold - told
            growth.append(f_hat)
            if k < len(pyramid) - 1:
                inputs = quantizer.next_scale_input(f_hat if inputs_are == CUMULATIVE else told, k + 1)
    return Sampled(jnp.concatenate(tokens, axis=1), f_hat, jnp.concatenate(all_logits, axis=1), jnp.stack(growth))


def _given(kept: Kept, quantizer: Quantizer, untold: jax.Array | None, k: int) -> tuple[jax.Array, jax.Array]:
    """Which positions [B, l_k] of scale k are kept, and the tokens [B, l_k] that they would be given."""
    positions = quantizer.pyramid.slice(k)
    if untold is None:
        return kept.keep_BxL[:, positions], kept.tokens_BxL[:, positions]
    return kept.keep_BxL[:, positions], quantizer.nearest(quantizer.next_scale_input(untold, k))


def _smooth_codes(keys_B: jax.Array, logits_BxlxV: jax.Array, ratio: float, codebook_VxC: jax.Array) -> jax.Array:
    """[B, l, C]: codes mixed by softmax(((1 + ratio) logits + Gumbel noise) / tau)."""
    tau = max(0.27 * (1.0 - 0.95 * ratio), 0.005)
    noise_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys_B)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits_BxlxV.shape[1:]))(noise_keys)
    weights = jax.nn.softmax(((1.0 + ratio) * logits_BxlxV + noise) / tau, axis=-1)
    return jnp.einsum("blv,vc->blc", weights, codebook_VxC, precision=jax.lax.Precision.HIGHEST)


def transformer_as_function(transformer: Transformer, labels_B: jax.Array, guided: bool) -> tuple[NextLogits, Any]:
    """A bound transformer as the loop's `next_logits`, and the state it starts from."""
    config = transformer.config
    labels_B = _rows(labels_B, config.no_class, guided)
    conditioning = transformer.condition(labels_B)

    def next_logits(cache: Any, k: int, codes_BxlxC: jax.Array | None) -> tuple[jax.Array, Any]:
        if codes_BxlxC is None:
            x = transformer.first_inputs(conditioning)
        else:
            x = transformer.embed_codes(codes_BxlxC, config.pyramid.slice(k))
            x = jnp.repeat(x, 2, axis=0) if guided else x
        return transformer.sample_step(x, k, conditioning, cache)

    return next_logits, new_cache(config, labels_B.shape[0], transformer.dtype)


def _rows(labels_B: jax.Array, no_class: int, guided: bool) -> jax.Array:
    """The rows to compute: under guidance each label and "no class" after it.

    Pairs, not halves: a batch split over devices keeps both rows of a picture together.
    """
    return jnp.stack([labels_B, jnp.full_like(labels_B, no_class)], axis=1).reshape(-1) if guided else labels_B


class Generated(NamedTuple):
    """Pictures [B, H, W, 3] float32 in [0, 1] and the tokens [B, L] they were drawn as."""

    images: jax.Array
    tokens: jax.Array


def sample(
    tokenizer: Tokenizer,
    transformer: Transformer,
    tokenizer_params: Params,
    transformer_params: Params,
    labels_B: jax.Array,
    key: jax.Array,
    settings: Controls,
    guided: bool,
    smooth: bool,
    kept: Kept | None = None,
) -> Sampled:
    """The loop with the real network; pure, to be called under `jit`."""
    bound = transformer.bind({"params": transformer_params})
    quantizer = tokenizer.bind({"params": tokenizer_params}).quantizer
    keys_B = picture_keys(key, labels_B.shape[0])
    if transformer.config.raster:
        if kept is not None or smooth:
            raise InputError("a model in raster order neither edits nor mixes codes: take one that draws by scale")
        rows, strengths = _rows(labels_B, transformer.config.no_class, guided), tuple(part[0] for part in settings)
        tokens, logits = sample_tokens(bound, quantizer, rows, keys_B, strengths, guided)
        f_hat = quantizer.decode(tokens)
        return Sampled(tokens, f_hat, logits, f_hat[None])
    next_logits, state = transformer_as_function(bound, labels_B, guided)
    told = transformer.config.inputs
    return sample_scales(next_logits, state, quantizer, keys_B, settings, guided, smooth, kept, told)


@functools.partial(jax.jit, static_argnames=("tokenizer", "transformer", "guided", "smooth"))
def generate(
    tokenizer: Tokenizer,
    transformer: Transformer,
    tokenizer_params: Params,
    transformer_params: Params,
    labels_B: jax.Array,
    key: jax.Array,
    settings: Controls,
    guided: bool,
    smooth: bool,
) -> Generated:
    """Class labels -> pictures, everything in one program.

    Args:
      tokenizer, transformer: modules (static).
      tokenizer_params, transformer_params: their parameters.
      labels_B: int32 class ids; `num_classes` is "no class".
      key: a scalar key, folded with the row, or one key a picture.
      settings: see `Controls`.
      guided: static; whether the batch is doubled for guidance.
      smooth: static; the smooth variant.
    """
    sampled = sample(
        tokenizer, transformer, tokenizer_params, transformer_params, labels_B, key, settings, guided, smooth
    )
    return Generated(decoded(tokenizer, tokenizer_params, sampled.f_hat_BxhxwxC), sampled.tokens_BxL)


@functools.partial(jax.jit, static_argnames=("tokenizer", "transformer", "guided", "smooth"))
def grow(
    tokenizer: Tokenizer,
    transformer: Transformer,
    tokenizer_params: Params,
    transformer_params: Params,
    labels_B: jax.Array,
    key: jax.Array,
    settings: Controls,
    guided: bool,
    smooth: bool,
) -> jax.Array:
    """As `generate`, but the pictures [S, B, H, W, 3] as they are after each scale; the last is `generate`'s."""
    sampled = sample(
        tokenizer, transformer, tokenizer_params, transformer_params, labels_B, key, settings, guided, smooth
    )
    # One scale after the other: all at once would take the decoder's memory S times.
    return jax.lax.map(lambda f_hat: decoded(tokenizer, tokenizer_params, f_hat), sampled.growth_SxBxhxwxC)


def decoded(tokenizer: Tokenizer, params: Params, f_hat_BxhxwxC: jax.Array) -> jax.Array:
    """f_hat -> pictures [B, H, W, 3] float32 in [0, 1]."""
    with jax.named_scope("decoder"):
        return to_unit(tokenizer.apply({"params": params}, f_hat_BxhxwxC, method="decode_features"))
