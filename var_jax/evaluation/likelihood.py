"""Likelihood of pictures' tokens under a transformer: loss, perplexity and accuracy by scale, teacher-forced."""

from __future__ import annotations

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
    """Sums over one batch; added up over all batches they are the input of `likelihood_figures`.

    No class is dropped. (The reference drops classes in validation too, so its figures are a little higher.)

    Args:
      inputs_BxNxC: the tokenizer's `transformer_input` of the tokens.
      mask_B: 1 for a picture, 0 for padding, which does not count.
    """
    logits = transformer.apply({"params": params}, labels_B, inputs_BxNxC)
    nll_BxL, hit_BxL, _ = token_losses(logits, tokens_BxL)
    return {"count": jnp.sum(mask_B), "loss_L": mask_B @ nll_BxL, "hits_L": mask_B @ hit_BxL}


def likelihood_figures(sums: dict[str, np.ndarray], pyramid: Pyramid) -> dict[str, Any]:
    """Figures from the sums over a set: loss in nats per token, means over positions; lists are by scale."""
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
