"""Next-scale sampling: every scale and the decoder in one XLA program.

`sample_scales` is the loop: at each scale predict logits, guide and filter them, draw all tokens at once, add their
codes to the running sum f_hat, and hand f_hat on at the size of the next scale. It knows the transformer only as a
function from a scale's inputs to its logits, so a test can put a fake one in its place. `generate` puts the real
network, the loop and the decoder under one `jit`: classes, keys and every number of the settings are traced, so that
changing them compiles nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from var_jax.generation.batching import picture_keys
from var_jax.generation.filtering import draw, filter_logits
from var_jax.generation.guidance import guide, with_no_class
from var_jax.generation.known import Known, KnownPicture
from var_jax.generation.raster import sample_tokens
from var_jax.generation.settings import Settings
from var_jax.models.baselines import BaselineTransformer
from var_jax.models.net import Net, Nets
from var_jax.models.pictures import to_unit
from var_jax.models.quantizer import Quantizer
from var_jax.models.reproducible import own_settings
from var_jax.models.transformer import Transformer, new_cache

_LARGE, _EXTREME = 1e4, 1e30  # logits that lose their noise to rounding, and that would overflow, where they are mixed

# (cache, scale k, inputs [B, l_k, C]) -> (logits, cache); at the first scale cache and inputs are None.
# Under guidance the logits have 2B rows that alternate with class, without class.
NextLogits = Callable[[Any, int, jax.Array | None], tuple[jax.Array, Any]]
# (quantizer, f_hat, the last scale's contribution, scale k) -> inputs [B, l_k, C].
ScaleInput = Callable[[Quantizer, jax.Array, jax.Array, int], jax.Array]


def downsampled_sum(quantizer: Quantizer, f_hat: jax.Array, contribution: jax.Array, k: int) -> jax.Array:
    """VAR's input of scale k: the sum of all coarser scales at its size."""
    return quantizer.next_scale_input(f_hat, k)


class Sampled(NamedTuple):
    """Everything the loop computes; XLA drops each part that is not used.

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


class Generated(NamedTuple):
    """Pictures [B, H, W, 3] float32 in [0, 1] and the tokens [B, L] they were drawn as."""

    images: jax.Array
    tokens: jax.Array


def sample_scales(
    next_logits: NextLogits,
    quantizer: Quantizer,
    keys_B: jax.Array,
    settings: Settings,
    known: Known | None = None,
    scale_input: ScaleInput = downsampled_sum,
) -> Sampled:
    """Draws every scale, coarse to fine.

    Args:
      next_logits: the transformer as a function.
      quantizer: bound to its parameters.
      keys_B: one key per picture; a picture depends on its own key alone.
      settings: one number of each kind per scale.
      known: tokens that stay; None draws all.
      scale_input: see `Transformer.scale_input`.
    """
    pyramid, cache, inputs = quantizer.pyramid, None, None
    f_hat: Any = 0.0  # float32 [B, h, w, C] from the first scale on
    all_tokens, all_logits, growth = [], [], []
    for k in range(len(pyramid)):
        with jax.named_scope(f"scale_{k}"):
            logits, cache = next_logits(cache, k, inputs)
            logits = guide(logits, settings.guidance_S[k]) if settings.guided else logits
            all_logits.append(logits)
            logits = filter_logits(logits / settings.temperature_S[k], settings.top_k_S[k], settings.top_p_S[k])
            keys = jax.vmap(lambda key, k=k: jax.random.fold_in(key, k))(keys_B)
            tokens = draw(keys, logits)
            if settings.smooth:
                codes = _smooth_codes(keys, logits, pyramid.ratio(k), quantizer.codebook)
            else:
                codes = quantizer.embed(tokens)
            if known is not None:
                tokens, codes = known.in_place_of(tokens, codes, quantizer, k)
            contribution = quantizer.contribution(codes, k)
            f_hat = f_hat + contribution
            known = known and known.less(contribution)
            all_tokens.append(tokens)
            growth.append(f_hat)
            if k < len(pyramid) - 1:
                inputs = scale_input(quantizer, f_hat, contribution, k + 1)
    return Sampled(jnp.concatenate(all_tokens, axis=1), f_hat, jnp.concatenate(all_logits, axis=1), jnp.stack(growth))


def _smooth_codes(keys_B: jax.Array, logits_BxlxV: jax.Array, ratio: float, codebook_VxC: jax.Array) -> jax.Array:
    """[B, l, C]: codes mixed by softmax(((1 + ratio) logits + Gumbel noise) / tau)."""
    # Extreme settings overflow, some to no token at all: finite numbers then, but none for a token filtered out.
    drawable = (logits_BxlxV > -jnp.inf) | ~jnp.any(logits_BxlxV > -jnp.inf, axis=-1, keepdims=True)
    finite = jnp.clip(jnp.nan_to_num(logits_BxlxV, nan=-_EXTREME), -_EXTREME, _EXTREME)
    logits_BxlxV = jnp.where(drawable, finite, -jnp.inf)
    largest = jnp.max(logits_BxlxV, axis=-1, keepdims=True)  # large ones mix by their differences, which round less
    logits_BxlxV = logits_BxlxV - jnp.where(jnp.abs(largest) > _LARGE, largest, 0.0)
    tau = max(0.27 * (1.0 - 0.95 * ratio), 0.005)
    noise_keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys_B)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits_BxlxV.shape[1:], jnp.float32))(noise_keys)
    weights = jax.nn.softmax(((1.0 + ratio) * logits_BxlxV + noise) / tau, axis=-1)
    return jnp.einsum("blv,vc->blc", weights, codebook_VxC, precision=jax.lax.Precision.HIGHEST)


def as_next_logits(transformer: Transformer, given: jax.Array, guided: bool) -> NextLogits:
    """A transformer, bound to its parameters, as the function that the loop calls."""
    config = transformer.config
    rows = with_no_class(given, config.no_class) if guided else given
    conditioning = transformer.condition(rows)

    def next_logits(cache: Any, k: int, inputs_BxlxC: jax.Array | None) -> tuple[jax.Array, Any]:
        if inputs_BxlxC is None:
            x, cache = transformer.first_inputs(conditioning), new_cache(config, rows.shape[0], transformer.dtype)
        else:
            x = transformer.embed_codes(inputs_BxlxC, config.pyramid.slice(k))
            x = jnp.repeat(x, 2, axis=0) if guided else x
        return transformer.sample_step(x, k, conditioning, cache)

    return next_logits


def sample(
    model: Nets, given: jax.Array, key: jax.Array, settings: Settings, known: KnownPicture | None = None
) -> Sampled:
    """The loop with the real networks; pure, to be called under `jit`. The arguments are those of `generate`."""
    tokenizer, transformer = model.tokenizer.bound(), model.transformer.bound()
    keys_B = picture_keys(key, given.shape[0])
    if isinstance(transformer, BaselineTransformer) and transformer.config.raster:
        tokens, logits = sample_tokens(transformer, tokenizer.quantizer, given, keys_B, settings, known)
        f_hat = tokenizer.quantizer.decode(tokens)
        return Sampled(tokens, f_hat, logits, f_hat[None])
    next_logits = as_next_logits(transformer, given, settings.guided)
    encoded = None if known is None else known.encoded(tokenizer)
    return sample_scales(next_logits, tokenizer.quantizer, keys_B, settings, encoded, transformer.scale_input)


@jax.jit
@own_settings()
def generate(
    model: Nets, given: jax.Array, key: jax.Array, settings: Settings, known: KnownPicture | None = None
) -> Generated:
    """Class labels -> pictures, everything in one program.

    Args:
      model: the networks, as `prepared` returns them.
      given: int32 class ids [B]; `num_classes` is "no class".
      key: a scalar key, folded with the row, or one key per picture.
      settings: how to draw.
      known: pictures of which some tokens stay, for editing; None draws all. One program serves every mask.
    """
    sampled = sample(model, given, key, settings, known)
    return Generated(decoded(model.tokenizer, sampled.f_hat_BxhxwxC), sampled.tokens_BxL)


@jax.jit
@own_settings()
def grow(model: Nets, given: jax.Array, key: jax.Array, settings: Settings) -> jax.Array:
    """As `generate`, but the pictures [S, B, H, W, 3] as they are after each scale; the last is `generate`'s."""
    sampled = sample(model, given, key, settings)
    # One scale after the other: all at once would take the decoder's memory S times.
    return jax.lax.map(lambda f_hat: decoded(model.tokenizer, f_hat), sampled.growth_SxBxhxwxC)


def decoded(tokenizer: Net, f_hat_BxhxwxC: jax.Array) -> jax.Array:
    """f_hat -> pictures [B, H, W, 3] float32 in [0, 1]."""
    with jax.named_scope("decoder"):
        return to_unit(tokenizer.apply(f_hat_BxhxwxC, method="decode_features"))


def prepared(tokenizer: Net, transformer: Net) -> Nets:
    """The networks of a model as `generate` runs them fastest; call it once and keep the result."""
    params = transformer.module.backend.prepare(transformer.params)
    return Nets(tokenizer, dataclasses.replace(transformer, params=params))
