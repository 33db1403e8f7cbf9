"""Rejection sampling: of more pictures than are kept, those that a classifier is surest to be of their class.

For n pictures of a class ceil(n / a) are drawn, a being the acceptance rate, and the n of the highest probability of
that class are kept. Figures of pictures chosen like this say little without the rate and the classifier, so every
report names both, and how often the classifier is right about real pictures.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from var_jax.bundle import Bundle
from var_jax.data.folder import Folder
from var_jax.data.sources import Spread
from var_jax.errors import InputError
from var_jax.evaluation.classifier import train_classifier
from var_jax.evaluation.small_data import pictures_of, real_pictures
from var_jax.generation.many import batches, class_keys
from var_jax.generation.pictures import to_uint8
from var_jax.pretrained import efficientnet

# uint8 pictures [N, H, W, 3] -> probabilities [N, classes].
Probabilities = Callable[[np.ndarray], np.ndarray]
# (labels [N], which picture of its class each one is [N]) -> uint8 pictures [N, H, W, 3].
Draw = Callable[[np.ndarray, np.ndarray], np.ndarray]

_HELD_OUT = 2000  # pictures that a classifier's accuracy is measured on, at most


class Chooser(NamedTuple):
    """A classifier, and how far to trust it.

    Attributes:
      name: of the classifier.
      probabilities: what it says.
      accuracy: share of real pictures whose likeliest class is theirs.
      accuracy_of: what that was measured on.
    """

    name: str
    probabilities: Probabilities
    accuracy: float
    accuracy_of: str


class Kept(NamedTuple):
    """The pictures of one class that were kept, the best first.

    Attributes:
      label: the class.
      indices: [n] which of the drawn pictures they are; they can be drawn again by these.
      scores: [n] the classifier's probability of the class.
      right: [n] whether no other class is likelier.
      images: [n, H, W, 3] uint8.
    """

    label: int
    indices: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    images: np.ndarray


def drawn_for(kept: int, acceptance: float) -> int:
    """ceil(kept / acceptance): how many pictures to draw.

    Raises:
      InputError: for a rate that is not above 0 and at most 1, or no pictures to keep.
    """
    if not 0.0 < acceptance <= 1.0:
        raise InputError(f"acceptance rate {acceptance}: expected above 0 and at most 1, like 0.25")
    if kept < 1:
        raise InputError(f"{kept} pictures a class: expected 1 or more")
    return max(kept, math.ceil(round(kept / acceptance, 6)))  # 3 / 0.3 is 10, whatever its last bit says


class Rejection:
    """Draws and chooses, class by class, and counts on the way.

    Args:
      draw: makes pictures; a picture is to depend on its class and index alone.
      probabilities: any classifier.
      per_class: pictures to keep, n.
      acceptance: share of the drawn ones that this is, a.
      batch: pictures at a time.

    Raises:
      InputError: for numbers that cannot be.
    """

    def __init__(
        self, draw: Draw, probabilities: Probabilities, per_class: int, acceptance: float, batch: int = 50
    ) -> None:
        self._draw, self._probabilities, self._batch = draw, probabilities, batch
        self._kept, self._each = per_class, drawn_for(per_class, acceptance)
        self._seen, self._right = np.zeros(2, int), np.zeros(2, int)  # of all drawn ones, of the kept ones

    def keep(self, labels: Sequence[int]) -> Iterator[Kept]:
        """The best pictures of each class, which is handed on as soon as it is drawn.

        Held are `per_class` pictures and one batch.

        Raises:
          InputError: if a class comes twice, or the classifier does not know one or gives no probabilities.
        """
        if len(set(labels)) != len(labels):
            raise InputError("classes to draw: expected each one once")
        label_N, index_N = np.repeat(np.asarray(labels, int), self._each), np.tile(np.arange(self._each), len(labels))
        best: Kept | None = None
        for rows, new in batches(len(label_N), self._batch):
            images = self._draw(label_N[rows], index_N[rows])[:new]
            rows = rows[:new]
            scores, right = self._judged(images, label_N[rows])
            for label in dict.fromkeys(label_N[rows].tolist()):
                own = label_N[rows] == label
                if best is not None and best.label != label:
                    yield self._finished(best)
                    best = None
                found = Kept(label, index_N[rows][own], scores[own], right[own], images[own])
                self._seen[0] += own.sum()
                self._right[0] += right[own].sum()
                best = _best(found if best is None else _both(best, found), self._kept)
        if best is not None:
            yield self._finished(best)

    def report(self, chooser: Chooser) -> dict[str, Any]:
        """What was done so far; `chooser` is the classifier's name and accuracy.

        The two class accuracies are by the classifier that chose, so the second one says more of how the choice
        went than of the pictures.
        """
        shares = [float(right / seen) if seen else None for right, seen in zip(self._right, self._seen, strict=True)]
        return {
            "acceptance_rate": float(self._seen[1] / self._seen[0]) if self._seen[0] else None,
            "drawn": int(self._seen[0]),
            "kept": int(self._seen[1]),
            "classifier": chooser.name,
            "classifier_accuracy": chooser.accuracy,
            "classifier_accuracy_of": chooser.accuracy_of,
            "class_accuracy_drawn": shares[0],
            "class_accuracy_kept": shares[1],
        }

    def _judged(self, images: np.ndarray, labels_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each picture's probability of its class, and whether that is its likeliest one."""
        p_NxC = np.asarray(self._probabilities(images))
        if p_NxC.ndim != 2 or len(p_NxC) != len(images) or p_NxC.shape[1] <= labels_N.max():
            raise InputError(
                f"classifier: gave an array of shape {p_NxC.shape} for {len(images)} pictures, expected a probability "
                f"for each of at least {labels_N.max() + 1} classes"
            )
        if not np.isfinite(p_NxC).all():
            raise InputError("classifier: gave a probability that is not finite, expected numbers from 0 to 1")
        return p_NxC[np.arange(len(images)), labels_N], np.argmax(p_NxC, axis=1) == labels_N

    def _finished(self, kept: Kept) -> Kept:
        self._seen[1] += len(kept.images)
        self._right[1] += kept.right.sum()
        return kept


def _both(a: Kept, b: Kept) -> Kept:
    return Kept(a.label, *(np.concatenate(pair) for pair in zip(a[1:], b[1:], strict=True)))


def _best(candidates: Kept, count: int) -> Kept:
    order = np.argsort(-candidates.scores, kind="stable")[:count]  # of equals the first drawn
    return Kept(candidates.label, *(part[order] for part in candidates[1:]))


def model_draws(bundle: Bundle, seed: int, **settings: Any) -> Draw:
    """A model's pictures by class and index; `settings` are those of `Bundle.generate`."""
    return lambda labels, indices: to_uint8(bundle.generate(labels, class_keys(seed, labels, indices), **settings))


def trained_chooser(
    directory: str | os.PathLike[str],
    bundle: Bundle,
    real: int = 6000,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> Chooser:
    """A small classifier trained on the real pictures of a transformer's training directory.

    Args:
      directory: of the run.
      bundle: its model.
      real: training pictures to learn from, at most.
      seed: of the classifier.
      say: takes lines on progress.

    Raises:
      InputError: if the directory is no transformer's run, or its data is gone.
    """
    training, held_out = real_pictures(directory, bundle, real, _HELD_OUT)
    classifier = train_classifier(*training, bundle.transformer.config.num_classes, seed=seed, progress=say)
    return Chooser(
        f"small classifier trained on {len(training[0])} real pictures",
        lambda images: classifier(images)[0],
        classifier.accuracy(*held_out),
        f"{len(held_out[0])} held-out real pictures of the same data set",
    )


def imagenet_chooser(
    file: str | os.PathLike[str], num_classes: int, held_out: str | os.PathLike[str] | None = None
) -> Chooser:
    """EfficientNet-Lite0, for models of ImageNet's 1000 classes in their usual order.

    Args:
      file: of its weights.
      num_classes: of the model.
      held_out: a folder of ImageNet's validation pictures, a sub-folder a class, to measure its accuracy on;
        without it the published figure is named as such.

    Raises:
      InputError: for a model of other classes, or a missing or wrong file or folder.
    """
    if num_classes != efficientnet.NUM_CLASSES:
        raise InputError(
            f"{efficientnet.NAME} knows ImageNet's {efficientnet.NUM_CLASSES} classes, the model has {num_classes}: "
            "use a classifier that was trained on its own classes"
        )
    classifier = efficientnet.ImageNetClassifier.from_file(file)
    accuracy, accuracy_of = efficientnet.PUBLISHED_TOP1, "ImageNet's validation pictures, as published: not measured"
    if held_out is not None:
        source = Folder("validation", held_out)
        if len(source.class_names) != num_classes:
            raise InputError(f"{held_out}: has {len(source.class_names)} classes, expected ImageNet's {num_classes}")
        images, labels = pictures_of(Spread(source, _HELD_OUT), 256, 1.0)
        accuracy = float(np.mean(np.argmax(classifier(images)[0], axis=1) == labels))
        accuracy_of = f"{len(images)} pictures of {held_out}"
    return Chooser(classifier.name, lambda images: classifier(images)[0], accuracy, accuracy_of)
