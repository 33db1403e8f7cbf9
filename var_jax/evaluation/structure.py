"""What a transformer has learned of pictures beyond the commonest tokens: held-out losses beside two that ignore some.

All are mean cross-entropies of held-out tokens, in nats a token. The unigram model knows which tokens a
class has at a position and nothing of the picture; a transformer below it uses the coarser scales. The
transformer with shuffled inputs sees the coarser scales of other pictures: how much worse it gets is
how much it listens to them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.bundle import Bundle
from var_jax.data.pipeline import epoch_batches
from var_jax.data.sources import Source, Spread
from var_jax.errors import InputError
from var_jax.generation.many import batches
from var_jax.models.inputs import teacher_inputs
from var_jax.models.parameters import Params
from var_jax.models.tokenizer import Tokenizer
from var_jax.models.transformer import Transformer
from var_jax.pyramid import Pyramid

_BATCH = 50

# What the baseline may choose from: how many made-up pictures of the back-off are added to a class's counts, and
# which share of the back-off is the position's tokens of all classes, the rest being all tokens alike. The share 0
# is plain additive smoothing, by STRENGTH / V a token.
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
      bundle: the model.
      source: its training pictures.
      images, labels: held-out pictures, uint8 [N, H, W, 3], and their classes.
      counted: training pictures whose tokens the unigram model counts, at most, evenly spread.
      enlarge: of the training pictures, see `Crop`.
      seed: of the shuffling.
      say: takes lines on progress.

    Returns:
      held_out_loss, unigram_loss, shuffled_input_loss: nats a token, means over pictures and positions.

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
    """Tokens [N, L] and classes [N] of at most `counted` training pictures, cut from the middle."""
    chosen, tokens, labels, done = Spread(source, counted), [], [], 0
    for batch in epoch_batches(chosen, bundle.tokenizer.config.image_size, _BATCH, enlarge=enlarge):
        kept = batch["mask"] > 0
        tokens.append(np.asarray(bundle.encode(batch["images"]))[kept])
        labels.append(batch["labels"][kept])
        done += int(kept.sum())
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
    position in that class, and the back-off q = share x (its part of the position's tokens in all
    classes) + (1 - share) / V. Strength and share are the best ones of those given **on the held-out
    tokens themselves**, chosen for each scale: the baseline is flattered, never the model.
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
    """[M, L]: how many rows of `seen` have the same token at the same position."""
    length = tokens_MxL.shape[1]
    first = np.arange(length) * codebook_size
    counts = np.bincount((seen_NxL + first).ravel(), minlength=length * codebook_size)
    return counts[tokens_MxL + first]


def transformer_losses(
    bundle: Bundle, tokens_NxL: np.ndarray, labels_N: np.ndarray, shuffle: np.random.Generator | None = None
) -> np.ndarray:
    """[N, L] teacher-forced -log p of the tokens, in nats.

    With `shuffle` the inputs of each scale come from another picture of the batch, drawn for each scale
    anew; classes and tokens to be guessed stay, and the first scale, which has no inputs, with them.
    """
    parts, pyramid = [], bundle.transformer.config.pyramid
    for rows, new in batches(len(tokens_NxL), _BATCH):
        orders_SxB = np.tile(np.arange(len(rows)), (len(pyramid), 1))
        if shuffle is not None:
            orders_SxB = np.stack([other_rows(len(rows), shuffle) for _ in orders_SxB])
        modules, params = (bundle.tokenizer, bundle.transformer), (bundle.tokenizer_params, bundle.transformer_params)
        parts.append(np.asarray(_losses(modules, params, labels_N[rows], tokens_NxL[rows], orders_SxB))[:new])
    return np.concatenate(parts)


def other_rows(count: int, rng: np.random.Generator) -> np.ndarray:
    """[count] a random permutation of the rows in one cycle: none of two or more stays where it is."""
    order = rng.permutation(count)
    result = np.empty(count, order.dtype)
    result[order] = np.roll(order, 1)
    return result


def permuted_inputs(inputs_BxNxC: jax.Array, orders_SxB: jax.Array, pyramid: Pyramid) -> jax.Array:
    """Teacher-forced inputs with the rows of each scale in an order of its own; the first scale has none."""
    first = pyramid.lengths[0]
    parts = [
        inputs_BxNxC[orders_SxB[k], pyramid.slice(k).start - first : pyramid.slice(k).stop - first]
        for k in range(1, len(pyramid))
    ]
    return jnp.concatenate(parts, axis=1) if parts else inputs_BxNxC


@functools.partial(jax.jit, static_argnums=0)
def _losses(
    modules: tuple[Tokenizer, Transformer],
    params: tuple[Params, Params],
    labels_B: jax.Array,
    tokens_BxL: jax.Array,
    orders_SxB: jax.Array,
) -> jax.Array:
    tokenizer, transformer = modules
    config = transformer.config
    inputs = teacher_inputs(tokenizer.bind({"params": params[0]}).quantizer, tokens_BxL, config.inputs)
    inputs = inputs[orders_SxB[0]] if config.raster else permuted_inputs(inputs, orders_SxB, config.pyramid)
    log_p = jax.nn.log_softmax(transformer.apply({"params": params[1]}, labels_B, inputs))
    return -jnp.take_along_axis(log_p, tokens_BxL[..., None], axis=-1)[..., 0]
