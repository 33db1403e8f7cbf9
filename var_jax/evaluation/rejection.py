"""Rejection sampling: draws more pictures than wanted and keeps those whose class a classifier is surest of.

For n pictures of a class, ceil(n / a) are drawn, a being the acceptance rate, and the n with the highest probability
of that class are kept. Figures of pictures chosen like this mean little without the rate and the classifier, so every
report names both, and the classifier's accuracy on real pictures.
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
from var_jax.generation.batching import batches, class_keys
from var_jax.generation.pictures import to_uint8
from var_jax.pretrained import efficientnet

# uint8 pictures [N, H, W, 3] -> probabilities [N, classes].
Probabilities = Callable[[np.ndarray], np.ndarray]
# (labels [N], index of each picture within its class [N]) -> uint8 pictures [N, H, W, 3].
Draw = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Pictures that a classifier is trained on, and those that its accuracy is measured on, at most.
_TRAINING, _HELD_OUT = 6000, 2000


class Chooser(NamedTuple):
    """A classifier that chooses pictures, and its accuracy.

    Attributes:
      name, probabilities: the classifier.
      accuracy, accuracy_of: share of real pictures whose likeliest class is the true one, and which pictures.
    """

    name: str
    probabilities: Probabilities
    accuracy: float
    accuracy_of: str


class Kept(NamedTuple):
    """The pictures of one class that were kept, the best first.

    Attributes:
      label: the class.
      indices: [n] indices among the drawn pictures, by which they can be drawn again.
      scores: [n] the classifier's probability of the class.
      right: [n] whether the class is the likeliest one.
      images: [n, H, W, 3] uint8.
    """

    label: int
    indices: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    images: np.ndarray


def drawn_for(kept: int, acceptance: float) -> int:
    """Number of pictures to draw: ceil(kept / acceptance).

    Raises:
      InputError: for a rate that is not above 0 and at most 1, or if `kept` is below 1.
    """
    if not 0.0 < acceptance <= 1.0:
        raise InputError(f"acceptance rate {acceptance}: expected above 0 and at most 1, like 0.25")
    if kept < 1:
        raise InputError(f"{kept} pictures per class: expected 1 or more")
    return max(kept, math.ceil(round(kept / acceptance, 6)))  # 3 / 0.3 is 10, whatever its last bit


class Rejection:
    """Draws and chooses pictures class by class, and counts them for the report.

    Args:
      draw: makes pictures; a picture must depend on its class and index alone.
      probabilities: any classifier.
      per_class: pictures to keep per class, n.
      acceptance: share of the drawn pictures that are kept, a.
      batch: pictures at a time.

    Raises:
      InputError: for invalid numbers.
    """

    def __init__(
        self, draw: Draw, probabilities: Probabilities, per_class: int, acceptance: float, batch: int = 50
    ) -> None:
        self._draw, self._probabilities, self._batch = draw, probabilities, batch
        self._kept, self._each = per_class, drawn_for(per_class, acceptance)
        # Whether the likeliest class is the right one, of all drawn pictures and of the kept ones.
        self._drawn_right, self._kept_right = [], []

    def keep(self, labels: Sequence[int]) -> Iterator[Kept]:
        """Yields the best pictures of each class as soon as the class is drawn.

        At any time `per_class` pictures and one batch are in memory.

        Raises:
          InputError: if a class comes twice, or the classifier does not know one or returns no probabilities.
        """
        if len(set(labels)) != len(labels):
            raise InputError("classes to draw: expected each one once")
        label_N, index_N = np.repeat(np.asarray(labels, int), self._each), np.tile(np.arange(self._each), len(labels))
        best: Kept | None = None
        for rows, new in batches(len(label_N), self._batch):
            images = self._draw(label_N[rows], index_N[rows])[:new]
            rows = rows[:new]
            scores, right = self._judged(images, label_N[rows])
            self._drawn_right += right.tolist()
            for label in dict.fromkeys(label_N[rows].tolist()):
                own = label_N[rows] == label
                found = Kept(label, index_N[rows][own], scores[own], right[own], images[own])
                best = _best([found] if best is None else [best, found], self._kept)
                if found.indices[-1] == self._each - 1:
                    self._kept_right += best.right.tolist()
                    yield best
                    best = None

    def report(self, chooser: Chooser) -> dict[str, Any]:
        """The report on all pictures so far; `chooser` holds the classifier's name and accuracy.

        The two class accuracies are by the classifier that chose, so the second one measures the choice more than
        the pictures.
        """
        drawn, kept = len(self._drawn_right), len(self._kept_right)
        return {
            "acceptance_rate": kept / drawn if drawn else None,
            "drawn": drawn,
            "kept": kept,
            "classifier": chooser.name,
            "classifier_accuracy": chooser.accuracy,
            "classifier_accuracy_of": chooser.accuracy_of,
            "class_accuracy_drawn": sum(self._drawn_right) / drawn if drawn else None,
            "class_accuracy_kept": sum(self._kept_right) / kept if kept else None,
        }

    def _judged(self, images: np.ndarray, labels_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each picture's probability of its class, and whether that class is the likeliest one."""
        p_NxC = np.asarray(self._probabilities(images))
        if p_NxC.ndim != 2 or len(p_NxC) != len(images) or p_NxC.shape[1] <= labels_N.max():
            raise InputError(
                f"classifier: gave an array of shape {p_NxC.shape} for {len(images)} pictures, expected a probability "
                f"for each of at least {labels_N.max() + 1} classes"
            )
        if not np.isfinite(p_NxC).all():
            raise InputError("classifier: gave a probability that is not finite, expected numbers from 0 to 1")
        return p_NxC[np.arange(len(images)), labels_N], np.argmax(p_NxC, axis=1) == labels_N


def _best(parts: Sequence[Kept], count: int) -> Kept:
    """The best pictures of all parts, which are of one class."""
    order = np.argsort(-np.concatenate([part.scores for part in parts]), kind="stable")[:count]  # the first of equals
    columns = zip(*(part[1:] for part in parts), strict=True)
    return Kept(parts[0].label, *(np.concatenate(column)[order] for column in columns))


def model_draws(bundle: Bundle, seed: int, **settings: Any) -> Draw:
    """A function that draws a model's pictures by class and index; `settings` are those of `Bundle.generate`."""
    return lambda labels, indices: to_uint8(bundle.generate(labels, class_keys(seed, labels, indices), **settings))


def trained_chooser(directory: str | os.PathLike[str], bundle: Bundle) -> Chooser:
    """Trains a small classifier on the real pictures of a transformer's training directory, whose model is `bundle`.

    Raises:
      InputError: if the directory is no transformer's run, or its data is gone.
    """
    training, held_out = real_pictures(directory, bundle, _TRAINING, _HELD_OUT)
    classifier = train_classifier(*training, bundle.transformer.config.num_classes, progress=print)
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

    Its accuracy is measured on `held_out`, a folder of ImageNet's validation pictures with one sub-folder per class;
    without it the published figure is reported, and named as such.

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
