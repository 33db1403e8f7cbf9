"""Measures how much of a picture's structure a transformer has learned: its held-out loss beside two baselines.

All losses are mean cross-entropies of held-out tokens, in nats per token. The unigram model knows how often a
class has a token at a position and nothing of the picture; a transformer with a lower loss uses the coarser
scales. The transformer with shuffled inputs sees the coarser scales of other pictures: the more its loss rises,
the more it relies on them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import jax
import numpy as np

from var_jax.bundle import Bundle
from var_jax.data.pipeline import epoch_batches
from var_jax.data.sources import Source, Spread
from var_jax.errors import InputError
from var_jax.generation.batching import batches
from var_jax.losses.tokens import token_losses
from var_jax.models.net import Nets
from var_jax.pyramid import Pyramid

_BATCH = 50

# The baseline chooses a strength, the number of pictures of the back-off added to a class's counts, and a share, the
# part of the back-off that follows the position's tokens in all classes, the rest being uniform. The share 0 is plain
# additive smoothing, by STRENGTH / V per token.
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 10_000.0)
SHARES = (0.0, 0.5, 0.9, 0.99, 0.999)


def structure(
    bundle: Bundle,
    source: Source,
    images: np.ndarray,
    labels: np.ndarray,
    counted: int = 20_000,
    enlarge: float = 1.0,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> dict[str, float]:
    """The held-out loss of a transformer, of a unigram model, and of the transformer with shuffled inputs.

    Args:
      bundle, source: the model and its training pictures.
      images, labels: held-out pictures, uint8 [N, H, W, 3], and their classes.
      counted: training pictures whose tokens the unigram model counts, at most, evenly spread.
      enlarge: enlargement of the training pictures, see `Crop`.

    Returns:
      held_out_loss, unigram_loss, shuffled_input_loss: nats per token, means over pictures and positions.

    Raises:
      InputError: if `counted` is not positive.
    """
    if counted < 1:
        raise InputError(f"counted {counted}: the unigram model needs at least one training picture")
    tokens = np.concatenate(
        [np.asarray(bundle.encode(images[rows]))[:new] for rows, new in batches(len(images), _BATCH)]
    )
    own, shuffled = (transformer_losses(bundle, tokens, labels, key) for key in (None, np.random.default_rng(seed)))
    seen, seen_labels = _training_tokens(bundle, source, counted, enlarge, say)
    config = bundle.tokenizer.config
    unigram = unigram_loss(seen, seen_labels, tokens, labels, config.pyramid, config.codebook_size)
    return {
        "held_out_loss": float(own.mean()),
        "unigram_loss": unigram,
        "shuffled_input_loss": float(shuffled.mean()),
    }


def _training_tokens(
    bundle: Bundle, source: Source, counted: int, enlarge: float, say: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [N, L] and classes [N] of at most `counted` training pictures, cropped at the centre."""
    chosen, tokens, labels, done = Spread(source, counted), [], [], 0
    for batch in epoch_batches(chosen, bundle.tokenizer.config.image_size, _BATCH, enlarge=enlarge):
        real = batch["mask"] > 0
        tokens.append(np.asarray(bundle.encode(batch["images"]))[real])
        labels.append(batch["labels"][real])
        done += int(real.sum())
        if done % 1000 == 0 or done == len(chosen):
            say(f"unigram model: tokens of {done}/{len(chosen)} training pictures")
    return np.concatenate(tokens), np.concatenate(labels)


def unigram_loss(
    seen_NxL: np.ndarray,
    seen_labels_N: np.ndarray,
    held_out_MxL: np.ndarray,
    labels_M: np.ndarray,
    pyramid: Pyramid,
    codebook_size: int,
    strengths: tuple[float, ...] = STRENGTHS,
    shares: tuple[float, ...] = SHARES,
) -> float:
    """Mean -log p of held-out tokens under counts of training tokens by class and position, in nats.

    p = (n + strength q) / (pictures of the class + strength) with the count n of the token at that
    position in that class, and the back-off q = share x (the token's frequency at that position in all
    classes) + (1 - share) / V. Strength and share are chosen per scale as the best **on the held-out
    tokens themselves**: that favours the baseline, never the model.
    """
    everywhere_MxL = _counts_of(held_out_MxL, seen_NxL, codebook_size) / len(seen_NxL)
    in_class_MxL, pictures_Mx1 = np.zeros(held_out_MxL.shape), np.zeros((len(labels_M), 1))
    for label in np.unique(labels_M):
        rows, seen = labels_M == label, seen_NxL[seen_labels_N == label]
        in_class_MxL[rows], pictures_Mx1[rows] = _counts_of(held_out_MxL[rows], seen, codebook_size), len(seen)
    losses = []
    for strength, share in itertools.product(strengths, shares):
        back_off_MxL = share * everywhere_MxL + (1 - share) / codebook_size
        p_MxL = (in_class_MxL + strength * back_off_MxL) / (pictures_Mx1 + strength)
        losses.append(-np.log(p_MxL).mean(axis=0))
    best_S = [np.stack(losses)[:, pyramid.slice(k)].mean(axis=1).min() for k in range(len(pyramid))]
    return float(np.average(best_S, weights=pyramid.lengths))


def _counts_of(tokens_MxL: np.ndarray, seen_NxL: np.ndarray, codebook_size: int) -> np.ndarray:
    """[M, L] number of rows of `seen` with the same token at the same position."""
    length = tokens_MxL.shape[1]
    first = np.arange(length) * codebook_size
    counts = np.bincount((seen_NxL + first).ravel(), minlength=length * codebook_size)
    return counts[tokens_MxL + first]


def transformer_losses(
    bundle: Bundle, tokens_NxL: np.ndarray, labels_N: np.ndarray, shuffle: np.random.Generator | None = None
) -> np.ndarray:
    """[N, L] teacher-forced -log p of the tokens, in nats.

    With `shuffle` the inputs of each scale come from another picture of the batch, drawn anew per scale;
    the classes and the tokens to predict stay, and so does the first scale, which has no inputs.
    """
    parts, pyramid = [], bundle.transformer.config.pyramid
    for rows, new in batches(len(tokens_NxL), _BATCH):
        orders_SxB = np.tile(np.arange(len(rows)), (len(pyramid), 1))
        if shuffle is not None:
            orders_SxB = np.stack([other_rows(len(rows), shuffle) for _ in orders_SxB])
        nets = Nets(bundle.tokenizer, bundle.transformer)
        parts.append(np.asarray(_losses(nets, labels_N[rows], tokens_NxL[rows], orders_SxB))[:new])
    return np.concatenate(parts)


def other_rows(count: int, rng: np.random.Generator) -> np.ndarray:
    """[count] a random permutation of the rows in one cycle: none of two or more stays where it is."""
    order = rng.permutation(count)
    result = np.empty(count, order.dtype)
    result[order] = np.roll(order, 1)
    return result


def permuted_inputs(inputs_BxNxC: jax.Array, orders_SxB: jax.Array, levels_N: np.ndarray) -> jax.Array:
    """Teacher-forced inputs, whose scales are `levels_N`, with the rows of each scale in an order of its own."""
    return inputs_BxNxC[orders_SxB[levels_N].T, np.arange(len(levels_N))]


@jax.jit
def _losses(nets: Nets, labels_B: jax.Array, tokens_BxL: jax.Array, orders_SxB: jax.Array) -> jax.Array:
    config = nets.transformer.config
    levels_N = config.pyramid.level_ids[config.start_length :]
    inputs = permuted_inputs(nets.teacher_inputs(tokens_BxL), orders_SxB, levels_N)
    return token_losses(nets.transformer.apply(labels_B, inputs), tokens_BxL)[0]
