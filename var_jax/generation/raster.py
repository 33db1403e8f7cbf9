"""Draws from a raster-scan transformer: one token after another, guidance, filtering and cache in one loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from var_jax.errors import InputError
from var_jax.generation.filtering import draw, filter_logits
from var_jax.generation.guidance import guide, with_no_class
from var_jax.generation.known import KnownPicture
from var_jax.generation.settings import Settings
from var_jax.models.baselines import BaselineTransformer
from var_jax.models.quantizer import Quantizer
from var_jax.models.transformer import new_cache


def sample_tokens(
    transformer: BaselineTransformer,
    quantizer: Quantizer,
    given: jax.Array,
    keys_B: jax.Array,
    settings: Settings,
    known: KnownPicture | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Tokens [B, L] int32 in raster order and the guided logits [B, L, V] they were drawn from.

    Args:
      transformer, quantizer: bound to their parameters.
      given: class ids [B].
      keys_B: one key per picture, folded with the position.
      settings: of the one scale, the same at every position.
      known: has to be None.

    Raises:
      InputError: for tokens that stay, or codes to be mixed.
    """
    if known is not None or settings.smooth:
        raise InputError("a model in raster order neither edits nor mixes codes: take one that draws by scale")
    length, guided = transformer.config.pyramid.length, settings.guided
    rows = with_no_class(given, transformer.config.no_class) if guided else given
    conditioning, empty_LxW = transformer.condition(rows), transformer.empty_inputs()
    top_k, top_p = settings.top_k_S[0], settings.top_p_S[0]

    def step(carry: tuple, position: jax.Array) -> tuple[tuple, tuple[jax.Array, jax.Array]]:
        x, cache = carry
        logits, cache = transformer.raster_step(x, position, conditioning, cache)
        logits = guide(logits, settings.guidance_S[0]) if guided else logits
        keys = jax.vmap(lambda key: jax.random.fold_in(key, position))(keys_B)
        token_B = draw(keys, filter_logits(logits / settings.temperature_S[0], top_k, top_p))[:, 0]
        codes = quantizer.embed(token_B)
        codes = jnp.repeat(codes, 2, axis=0) if guided else codes
        following = empty_LxW[jnp.minimum(position + 1, length - 1)]
        return (following + transformer.project_code(codes), cache), (token_B, logits[:, 0])

    cache = new_cache(transformer.config, rows.shape[0], transformer.dtype, length)
    start = transformer.first_inputs(conditioning), cache
    _, (tokens_LxB, logits_LxBxV) = jax.lax.scan(step, start, jnp.arange(length))
    return tokens_LxB.T, logits_LxBxV.swapaxes(0, 1)
