"""How well a transformer expects the tokens of pictures: loss, perplexity and accuracy by scale, teacher-forced.

A set's figures are made of sums over batches, so that a set of any size is one pass.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.losses.tokens import token_losses
from var_jax.models.parameters import Params
from var_jax.models.transformer import Transformer
from var_jax.pyramid import Pyramid


def likelihood_sums(
    transformer: Transformer,
    params: Params,
    labels_B: jax.Array,
    tokens_BxL: jax.Array,
    inputs_BxNxC: jax.Array,
    mask_B: jax.Array,
) -> dict[str, jax.Array]:
    """Sums over a batch of what `likelihood_figures` makes figures of; to be added up over batches.

    No class is dropped. (The reference drops classes in validation too, so its figures are a little higher.)

    Args:
      transformer, params: the model.
      labels_B: class ids.
      tokens_BxL: the pictures' tokens.
      inputs_BxNxC: the transformer's teacher-forced inputs, see `models.inputs`.
      mask_B: 1 for a picture, 0 for filling, which counts nothing.
    """
    logits = transformer.apply({"params": params}, labels_B, inputs_BxNxC)
    nll_BxL, hit_BxL, _ = token_losses(logits, tokens_BxL)
    return {"count": jnp.sum(mask_B), "loss_L": mask_B @ nll_BxL, "hits_L": mask_B @ hit_BxL}


def likelihood_figures(sums: dict[str, np.ndarray], pyramid: Pyramid) -> dict[str, Any]:
    """Sums over a set -> figures: loss in nats a token, means over positions; lists are by scale."""
    loss_L, hits_L = sums["loss_L"] / sums["count"], sums["hits_L"] / sums["count"]
    parts = [pyramid.slice(k) for k in range(len(pyramid))]
    losses, hits = ([float(np.mean(values[part])) for part in parts] for values in (loss_L, hits_L))
    return {
        "loss": float(np.mean(loss_L)),
        "loss_last": losses[-1],
        "accuracy": float(np.mean(hits_L)),
        "accuracy_last": hits[-1],
        "loss_by_scale": losses,
        "accuracy_by_scale": hits,
    }


def with_perplexity(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures of `likelihood_figures` and the exponentials of their losses: among how many tokens it wavers."""
    return figures | {
        "perplexity": math.exp(figures["loss"]),
        "perplexity_by_scale": [math.exp(loss) for loss in figures["loss_by_scale"]],
    }
