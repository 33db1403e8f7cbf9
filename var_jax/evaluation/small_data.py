"""Figures for small data, where FID means nothing.

Class accuracy, spread, nearest training picture, Frechet distances under their own names, PSNR, losses.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from var_jax.bundle import Bundle, check_settings, load
from var_jax.data.pipeline import epoch_batches
from var_jax.data.sources import SPLITS, Source, Spread, make_source
from var_jax.errors import InputError
from var_jax.evaluation.classifier import nearest_distances, spread_within_classes, train_classifier
from var_jax.evaluation.frechet import frechet_distance, mean_and_covariance
from var_jax.evaluation.reconstruction import psnr
from var_jax.evaluation.structure import structure
from var_jax.generation.many import batches, class_keys
from var_jax.generation.pictures import to_uint8
from var_jax.pretrained.efficientnet import ImageNetClassifier
from var_jax.training_directory import read_run

_BATCH = 50
_HELD_OUT = 1000  # real pictures that samples are held beside, at most

_REFERENCE = 2000  # real training pictures that a Frechet distance is taken to, at most

Labelled = tuple[np.ndarray, np.ndarray]
# uint8 [N, H, W, 3] -> (probabilities [N, classes], features [N, F]).
Features = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def measure(
    directory: str | os.PathLike[str],
    samples: int = 500,
    guidance: float = 1.5,
    top_k: int = 900,
    top_p: float = 0.96,
    real: int = 6000,
    seed: int = 0,
    counted: int = 20_000,
    efficientnet: str | os.PathLike[str] | None = None,
) -> dict[str, float]:
    """Judges a transformer's training directory beside the pictures it was trained on.

    Args:
      directory: of the run; its data is read again from what the run's config says.
      samples: drawn evenly over the classes.
      guidance, top_k, top_p: of the samples.
      real: real training pictures for the classifier and for distances, at most.
      seed: of samples, classifier and shuffling.
      counted: real training pictures whose tokens the unigram model counts, at most.
      efficientnet: the file of EfficientNet-Lite0's weights, for a Frechet distance on its features too.

    Returns:
      classifier_accuracy: on held-out real pictures;
      class_accuracy: samples that the classifier takes for the class they were drawn as;
      spread: of samples within a class, over that of held-out real pictures, in the classifier's features;
      nearest: median distance of a sample to its nearest training picture, over that of held-out real ones;
      frechet_small_classifier: Frechet distance of samples to real training pictures on that classifier's features,
        and frechet_small_classifier_held_out that of as many held-out real pictures, which is what a perfect model
        would reach; frechet_efficientnet_lite0 and frechet_efficientnet_lite0_held_out, if its file is given. These
        are no FID, and comparable between runs on the same data and number of samples only;
      psnr: of reconstructions of held-out real pictures, dB; psnr_of_mean_fill: of their mean colours;
      held_out_loss, unigram_loss, shuffled_input_loss: see `structure`.

    Raises:
      InputError: if the directory is no transformer's run, its data is gone, or a file is not what it should be.
    """
    check_settings(guidance, top_k, top_p, 1.0)
    judges: dict[str, Features] = {}
    if efficientnet is not None:  # read first: a wrong file is found before the work
        judges["efficientnet_lite0"] = ImageNetClassifier.from_file(efficientnet)
    data, bundle = _data_of(directory), load(directory)
    classes = bundle.transformer.config.num_classes
    training, held_out = real_pictures(directory, bundle, real, _HELD_OUT)
    source = make_source(data["kind"], SPLITS[0], **data["options"])
    losses = structure(bundle, source, *held_out, counted, data["enlarge"], seed, _say)
    classifier = train_classifier(*training, classes, seed=seed, progress=_say)
    labels = np.arange(samples) % classes
    drawn = _samples(bundle, labels, seed, guidance=guidance, top_k=top_k, top_p=top_p)
    reconstructed, mean_fill = _psnr(bundle, held_out[0][: 4 * _BATCH])
    features = classifier(drawn)[1], classifier(held_out[0])[1]
    judges = {"small_classifier": classifier, **judges}
    return {
        "classifier_accuracy": classifier.accuracy(*held_out),
        "class_accuracy": classifier.accuracy(drawn, labels),
        "spread": spread_within_classes(features[0], labels) / spread_within_classes(features[1], held_out[1]),
        "nearest": float(
            np.median(nearest_distances(drawn, training[0])) / np.median(nearest_distances(held_out[0], training[0]))
        ),
        "psnr": reconstructed,
        "psnr_of_mean_fill": mean_fill,
        **{
            name: value
            for judge, of in judges.items()
            for name, value in frechet_figures(judge, of, drawn, training[0], held_out[0]).items()
        },
    } | losses


def frechet_figures(
    name: str, features_of: Features, drawn: np.ndarray, training: np.ndarray, held_out: np.ndarray
) -> dict[str, float]:
    """Frechet distances to real training pictures on a classifier's features: of samples, and of held-out pictures.

    Both are of equally many pictures, since the distance falls with their number; more of either are left out evenly.

    Args:
      name: of the classifier: part of the figures' names.
      features_of: the classifier.
      drawn, training, held_out: uint8 [N, H, W, 3] each.

    Returns:
      frechet_NAME and frechet_NAME_held_out.
    """
    count = min(len(drawn), len(held_out))
    reference, *others = (
        mean_and_covariance(features_of(_evenly(images, most))[1])
        for images, most in ((training, _REFERENCE), (drawn, count), (held_out, count))
    )
    distances = [frechet_distance(*other, *reference) for other in others]
    return dict(zip((f"frechet_{name}", f"frechet_{name}_held_out"), distances, strict=True))


def _evenly(images: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of them, evenly spread: in sets that are ordered by class every class is among them."""
    return images[np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)]


def _samples(bundle: Bundle, labels: np.ndarray, seed: int, **settings: Any) -> np.ndarray:
    """uint8 pictures of the labels, which take turns by class."""
    keys = class_keys(seed, labels, np.arange(len(labels)) // bundle.transformer.config.num_classes)
    drawn = []
    for rows, new in batches(len(labels), _BATCH):
        drawn.append(to_uint8(bundle.generate(labels[rows], keys[rows], **settings))[:new])
        _say(f"samples: {sum(map(len, drawn))}/{len(labels)}")
    return np.concatenate(drawn)


def _say(text: str) -> None:
    print(text, flush=True)


def _data_of(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The config's `data` of a transformer's run."""
    run = read_run(directory)
    if run["stage"] != "transformer":
        raise InputError(f"{directory}: is a tokenizer's run; give the transformer's that was trained on it")
    return run["config"]["data"]


def real_pictures(
    directory: str | os.PathLike[str], bundle: Bundle, training: int, held_out: int
) -> tuple[Labelled, Labelled]:
    """Real pictures of a transformer's run, to train a classifier with and to judge it by.

    Args:
      directory: of the run; its data is read again from what the run's config says.
      bundle: its model, whose size the pictures get.
      training, held_out: how many of each split, at most, evenly spread.

    Returns:
      Twice (uint8 [N, H, W, 3], int32 [N]): of the training split, and of the validation split.

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
        kept = batch["mask"] > 0
        images.append(batch["images"][kept])
        labels.append(batch["labels"][kept])
    return np.concatenate(images), np.concatenate(labels)


def _psnr(bundle: Bundle, images: np.ndarray) -> tuple[float, float]:
    """Mean PSNR of reconstructions, and of each picture's mean colour in its place."""
    values = []
    for rows, new in batches(len(images), _BATCH):
        original = images[rows].astype(np.float32) / 255.0
        again = bundle.decode(bundle.encode(images[rows]))
        flat = np.broadcast_to(original.mean(axis=(1, 2), keepdims=True), original.shape)
        values.append(np.stack([psnr(original, again), psnr(original, flat)])[:, :new])
    return tuple(float(value) for value in np.concatenate(values, axis=1).mean(axis=1))
