"""The inputs of a transformer, by name: VAR's, and those of the baselines that it is compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from var_jax.models.precision import widened
from var_jax.models.quantizer import Quantizer

CUMULATIVE = "cumulative"  # the sum of all coarser scales, shrunk to this one (VAR)
LAST_SCALE = "last_scale"  # the contribution of the scale before, alone
PREVIOUS_TOKEN = "previous_token"  # the code of the token before, row by row: the raster-scan baseline, of one scale
INPUTS = (CUMULATIVE, LAST_SCALE, PREVIOUS_TOKEN)


def teacher_inputs(quantizer: Quantizer, tokens_BxL: jax.Array, inputs: str) -> jax.Array:
    """Teacher-forced inputs [B, N, C] float32 of all positions but the first scale's (N = L - l_1).

    Of all positions but the first (N = L - 1) for "previous_token".

    Args:
      quantizer: bound to its parameters.
      tokens_BxL: int32.
      inputs: one of `INPUTS`.
    """
    pyramid = quantizer.pyramid
    if inputs == PREVIOUS_TOKEN:
        return widened(quantizer.embed(tokens_BxL[:, :-1]))
    if inputs == LAST_SCALE and len(pyramid) > 1:
        codes = [quantizer.embed(tokens_BxL[:, pyramid.slice(k)]) for k in range(len(pyramid) - 1)]
        alone = [quantizer.contribution(each, k) for k, each in enumerate(codes)]
        return jnp.concatenate([quantizer.next_scale_input(each, k + 1) for k, each in enumerate(alone)], axis=1)
    return quantizer.transformer_input(tokens_BxL)  # of one scale alone all are the same: nothing
