"""Figures for small data sets, where FID means nothing.

Class accuracy, spread, nearest training picture, Frechet distances under names of their own, PSNR, losses.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from var_jax.bundle import Bundle, load
from var_jax.data.pipeline import epoch_batches
from var_jax.data.sources import SPLITS, Source, Spread, make_source
from var_jax.errors import InputError
from var_jax.evaluation.classifier import Classifier, nearest_distances, spread_within_classes, train_classifier
from var_jax.evaluation.frechet import frechet_distance, mean_and_covariance
from var_jax.evaluation.reconstruction import psnr
from var_jax.evaluation.structure import structure
from var_jax.generation.batching import batches, class_keys
from var_jax.generation.pictures import to_uint8
from var_jax.generation.settings import DEFAULTS, SamplingOptions
from var_jax.pretrained.efficientnet import ImageNetClassifier
from var_jax.training_directory import read_run

_BATCH = 50
_HELD_OUT = 1000  # held-out real pictures that samples are compared with, at most
_REFERENCE = 2000  # real training pictures behind a Frechet distance, at most

Labelled = tuple[np.ndarray, np.ndarray]
# uint8 [N, H, W, 3] -> (probabilities [N, classes], features [N, F]).
Features = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def measure(
    directory: str | os.PathLike[str],
    samples: int = 500,
    guidance: float = DEFAULTS.guidance,
    top_k: int = DEFAULTS.top_k,
    top_p: float = DEFAULTS.top_p,
    real: int = 6000,
    seed: int = 0,
    counted: int = 20_000,
    efficientnet: str | os.PathLike[str] | None = None,
) -> dict[str, float]:
    """Judges a transformer's training directory beside the pictures it was trained on.

    Args:
      directory: the training directory; the run's config says where its data is.
      samples: number of samples, drawn evenly over the classes.
      real: real training pictures for the classifier and for distances, at most.
      seed: seed of samples, classifier and shuffling.
      counted: real training pictures whose tokens the unigram model counts, at most.
      efficientnet: the file of EfficientNet-Lite0's weights, for a Frechet distance on its features too.

    Returns:
      classifier_accuracy: accuracy on held-out real pictures;
      class_accuracy: share of samples that the classifier assigns to the class they were drawn for;
      spread: spread of samples within a class, over that of held-out real pictures, in the classifier's features;
      nearest: median distance of a sample to its nearest training picture, over that of held-out real ones;
      frechet_small_classifier: Frechet distance of samples to real training pictures on that classifier's features,
        and frechet_small_classifier_held_out that of as many held-out real pictures, which a perfect model would
        reach; frechet_efficientnet_lite0 and frechet_efficientnet_lite0_held_out, if its file is given. These
        are no FID, and comparable only between runs on the same data with the same number of samples;
      psnr: PSNR of reconstructions of held-out real pictures, dB; psnr_of_mean_fill: that of their mean colours;
      held_out_loss, unigram_loss, shuffled_input_loss: see `structure`.

    Raises:
      InputError: if the directory is no transformer's run, its data is gone, or a file is not the expected one.
    """
    sampling, say = {"guidance": guidance, "top_k": top_k, "top_p": top_p}, functools.partial(print, flush=True)
    SamplingOptions(**sampling).check()
    judges: dict[str, Features] = {}
    if efficientnet is not None:  # read first: a wrong file is found before the work
        judges["efficientnet_lite0"] = ImageNetClassifier.from_file(efficientnet)
    data, bundle = _data_of(directory), load(directory)
    classes = bundle.transformer.config.num_classes
    training, held_out = real_pictures(directory, bundle, real, _HELD_OUT)
    source = make_source(data["kind"], SPLITS[0], **data["options"])
    losses = structure(bundle, source, *held_out, counted, data["enlarge"], seed, say)
    classifier = train_classifier(*training, classes, seed=seed, progress=say)
    labels = np.arange(samples) % classes
    drawn, _ = draw_samples(bundle, labels, seed, say, **sampling)
    reconstructed, mean_fill = _psnr(bundle, held_out[0][: 4 * _BATCH])
    figures = class_figures(classifier, (drawn, labels), held_out)
    nearest = [np.median(nearest_distances(images, training[0])) for images in (drawn, held_out[0])]
    figures |= {"nearest": float(nearest[0] / nearest[1]), "psnr": reconstructed, "psnr_of_mean_fill": mean_fill}
    for judge, features in {"small_classifier": classifier, **judges}.items():
        figures |= frechet_figures(judge, features, drawn, training[0], held_out[0])
    return figures | losses


def class_figures(classifier: Classifier, drawn: Labelled, held_out: Labelled) -> dict[str, float]:
    """classifier_accuracy, class_accuracy and spread, see `measure`, of (images, labels) drawn and held out."""
    spreads = [spread_within_classes(classifier(images)[1], labels) for images, labels in (drawn, held_out)]
    return {
        "classifier_accuracy": classifier.accuracy(*held_out),
        "class_accuracy": classifier.accuracy(*drawn),
        "spread": spreads[0] / spreads[1],
    }


def frechet_figures(
    name: str, features_of: Features, drawn: np.ndarray, training: np.ndarray, held_out: np.ndarray
) -> dict[str, float]:
    """frechet_NAME and frechet_NAME_held_out: distances of samples and of held-out pictures to real training pictures.

    All pictures are uint8 [N, H, W, 3], and judged by a classifier's features. Both figures use equally many pictures,
    since the distance falls with their number; the larger set is thinned out evenly.
    """
    count = min(len(drawn), len(held_out))
    reference, *others = (
        mean_and_covariance(features_of(_evenly(images, most))[1])
        for images, most in ((training, _REFERENCE), (drawn, count), (held_out, count))
    )
    distances = [frechet_distance(*other, *reference) for other in others]
    return dict(zip((f"frechet_{name}", f"frechet_{name}_held_out"), distances, strict=True))


def _evenly(images: np.ndarray, count: int) -> np.ndarray:
    """At most `count` pictures, evenly spread, so that a set ordered by class keeps every class."""
    return images[np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)]


def draw_samples(
    bundle: Bundle, labels: np.ndarray, seed: int, say: Callable[[str], None], **settings: Any
) -> tuple[np.ndarray, float]:
    """uint8 pictures of the labels, which take turns by class; and the fastest batch's seconds per picture."""
    keys = class_keys(seed, labels, np.arange(len(labels)) // bundle.transformer.config.num_classes)
    drawn, fastest = [], float("inf")
    for rows, new in batches(len(labels), _BATCH):
        begun = time.perf_counter()
        images = np.asarray(bundle.generate(labels[rows], keys[rows], **settings))
        fastest = min(fastest, (time.perf_counter() - begun) / len(images))
        drawn.append(to_uint8(images)[:new])
        say(f"samples: {sum(map(len, drawn))}/{len(labels)}")
    return np.concatenate(drawn), fastest


def _data_of(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The config's `data` of a transformer's run."""
    run = read_run(directory)
    if run["stage"] != "transformer":
        raise InputError(f"{directory}: is a tokenizer's run; give the transformer's that was trained on it")
    return run["config"]["data"]


def real_pictures(
    directory: str | os.PathLike[str], bundle: Bundle, training: int, held_out: int
) -> tuple[Labelled, Labelled]:
    """Reads real pictures of a transformer's run, to train a classifier and to test it.

    Returns:
      Twice (uint8 [N, H, W, 3], int32 [N]): at most `training` pictures of the training split and `held_out` ones of
      the validation split, evenly spread, at the size of `bundle`, the run's model.

    Raises:
      InputError: if the directory is no transformer's run, or its data is gone.
    """
    data, size = _data_of(directory), bundle.tokenizer.config.image_size
    return tuple(
        pictures_of(Spread(make_source(data["kind"], split, **data["options"]), count), size, data["enlarge"])
        for split, count in zip(SPLITS, (training, held_out), strict=True)
    )


def pictures_of(source: Source, size: int, enlarge: float) -> Labelled:
    """All pictures of a source at one size, uint8 [N, size, size, 3], and their labels; damaged ones are left out."""
    images, labels = [], []
    for batch in epoch_batches(source, size, _BATCH, enlarge=enlarge):
        real = batch["mask"] > 0
        images.append(batch["images"][real])
        labels.append(batch["labels"][real])
    return np.concatenate(images), np.concatenate(labels)


def _psnr(bundle: Bundle, images: np.ndarray) -> tuple[float, float]:
    """Mean PSNR of reconstructions, and of pictures filled with their mean colour."""
    values = []
    for rows, new in batches(len(images), _BATCH):
        original = images[rows].astype(np.float32) / 255.0
        again = bundle.decode(bundle.encode(images[rows]))
        flat = np.broadcast_to(original.mean(axis=(1, 2), keepdims=True), original.shape)
        values.append(np.stack([psnr(original, again), psnr(original, flat)])[:, :new])
    return tuple(float(value) for value in np.concatenate(values, axis=1).mean(axis=1))
