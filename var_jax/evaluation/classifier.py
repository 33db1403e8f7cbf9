"""A small classifier, trained on a data set's real pictures, that judges samples where FID means nothing.

It decides whether a sample shows the class it was drawn for, and its last features measure how far the
pictures of a class lie apart. Its accuracy on held-out real pictures is always reported beside its verdicts.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from var_jax.generation.batching import batches
from var_jax.models.net import Net
from var_jax.models.reproducible import new_key

_BATCH, _TRAINING_BATCH = 250, 64  # pictures at a time


class SmallClassifier(nn.Module):
    """Convolutions with group norm, each level half the side of the previous one; features, then logits."""

    num_classes: int
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, images_BxHxWx3: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[0, 255] of any type -> (logits [B, classes], features [B, 2 x last width])."""
        x = images_BxHxWx3.astype(jnp.float32) / 127.5 - 1.0
        for width in self.widths:
            x = nn.relu(nn.GroupNorm(4)(nn.Conv(width, (3, 3), use_bias=False)(x)))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(self.widths[-1], (3, 3))(x))
        features = jnp.concatenate([x.mean((1, 2)), x.max((1, 2))], axis=-1)
        return nn.Dense(self.num_classes)(features), features


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained `SmallClassifier`."""

    net: Net

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [N, H, W, 3] -> (probabilities [N, classes], features [N, F])."""
        parts = []
        for rows, new in batches(len(images), _BATCH, fill=True):
            logits, features = _apply(self.net, images[rows])
            parts.append([np.asarray(x)[:new] for x in (jax.nn.softmax(logits), features)])
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Share of pictures whose likeliest class is the label."""
        return float(np.mean(np.argmax(self(images)[0], axis=-1) == labels))


@jax.jit
def _apply(net: Net, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    return net.apply(images)


def train_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    steps: int = 800,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Classifier:
    """Trains on uint8 [N, H, W, 3] with AdamW and a cosine schedule; pictures are blurred and made noisy at random.

    Without blur and noise the classifier would rely on sharp edges, and judge how soft a tokenizer's pictures
    are instead of the form they show. Each step takes 64 pictures, drawn at random.
    """
    widths = (24, 48, 96) if images.shape[1] <= 32 else (12, 24, 48, 96)
    module = SmallClassifier(num_classes, widths)
    params = module.init(new_key(seed), jnp.zeros((1, *images.shape[1:]), jnp.uint8))["params"]
    optimizer = optax.adamw(optax.cosine_decay_schedule(3e-3, steps))
    state, rng = optimizer.init(params), np.random.default_rng(seed)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, x: jax.Array, y: jax.Array, key: jax.Array) -> tuple[Any, Any, jax.Array]:
        x = _softened(x.astype(jnp.float32), key)

        def loss_fn(params: Any) -> jax.Array:
            logits, _ = module.apply({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    for number in range(1, steps + 1):
        rows = rng.integers(0, len(images), _TRAINING_BATCH)
        key = jax.random.fold_in(new_key(seed), number)
        params, state, loss = step(params, state, images[rows], labels[rows], key)
        if progress and number % 100 == 0:
            progress(f"classifier: step {number}/{steps}, loss {float(loss):.4f}")
    return Classifier(Net(module, params))


def _softened(images_BxHxWx3: jax.Array, key: jax.Array) -> jax.Array:
    """Mixes each picture with its blur and with noise, in shares drawn per picture; [0, 255] in and out."""
    keys, shape = jax.random.split(key, 3), (len(images_BxHxWx3), 1, 1, 1)
    blur = images_BxHxWx3
    for _ in range(2):
        padded = jnp.pad(blur, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        blur = nn.avg_pool(padded, (3, 3))
    share = jax.random.uniform(keys[0], shape)
    noise = 16.0 * jax.random.uniform(keys[1], shape) * jax.random.normal(keys[2], images_BxHxWx3.shape)
    return images_BxHxWx3 + share * (blur - images_BxHxWx3) + noise


def spread_within_classes(features: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance of pictures of a class from that class's mean, over classes with two or more."""
    spreads = []
    for label in np.unique(labels):
        rows = features[labels == label]
        if len(rows) > 1:
            spreads.append(np.mean(np.linalg.norm(rows - rows.mean(axis=0), axis=-1)))
    return float(np.mean(spreads))


def nearest_distances(pictures: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[N] root-mean-square pixel distance (0 to 1) of each uint8 picture to the nearest of `others`."""
    a = pictures.reshape(len(pictures), -1).astype(np.float32) / 255.0
    b = others.reshape(len(others), -1).astype(np.float32) / 255.0
    squares = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1)[None] - 2.0 * (a @ b.T)
    return np.sqrt(np.maximum(squares.min(axis=1), 0.0) / a.shape[1])
