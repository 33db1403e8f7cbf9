"""Figures for small data, where FID means nothing: class accuracy, spread, nearest training picture, PSNR, losses."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from var_jax.bundle import Bundle, check_settings, load
from var_jax.data.pipeline import epoch_batches
from var_jax.data.sources import SPLITS, Source, Spread, make_source
from var_jax.errors import InputError
from var_jax.evaluation.classifier import nearest_distances, spread_within_classes, train_classifier
from var_jax.evaluation.reconstruction import psnr
from var_jax.evaluation.structure import structure
from var_jax.generation.many import batches, class_keys
from var_jax.generation.pictures import to_uint8
from var_jax.training_directory import read_run

_BATCH = 50


def measure(
    directory: str | os.PathLike[str],
    samples: int = 500,
    guidance: float = 1.5,
    top_k: int = 900,
    top_p: float = 0.96,
    real: int = 6000,
    seed: int = 0,
    counted: int = 20_000,
) -> dict[str, float]:
    """Judges a transformer's training directory beside the pictures it was trained on.

    Args:
      directory: of the run; its data is read again from what the run's config says.
      samples: drawn evenly over the classes.
      guidance, top_k, top_p: of the samples.
      real: real training pictures for the classifier and for distances, at most.
      seed: of samples, classifier and shuffling.
      counted: real training pictures whose tokens the unigram model counts, at most.

    Returns:
      classifier_accuracy: on held-out real pictures;
      class_accuracy: samples that the classifier takes for the class asked for;
      spread: of samples within a class, over that of held-out real pictures, in the classifier's features;
      nearest: median distance of a sample to its nearest training picture, over that of held-out real ones;
      psnr: of reconstructions of held-out real pictures, dB; psnr_of_mean_fill: of their mean colours;
      held_out_loss, unigram_loss, shuffled_input_loss: see `structure`.

    Raises:
      InputError: if the directory is no transformer's run, or its data is gone.
    """
    check_settings(guidance, top_k, top_p, 1.0)
    run = read_run(directory)
    if run["stage"] != "transformer":
        raise InputError(f"{directory}: is a tokenizer's run; measure the transformer's that was trained on it")
    bundle, data = load(directory), run["config"]["data"]
    size, classes = bundle.tokenizer.config.image_size, bundle.transformer.config.num_classes
    source, validation = (make_source(data["kind"], split, **data["options"]) for split in SPLITS)
    training, held_out = (
        _pictures(pictures, size, data["enlarge"], count) for pictures, count in ((source, real), (validation, 1000))
    )
    losses = structure(bundle, source, *held_out, counted, data["enlarge"], seed, _say)
    classifier = train_classifier(*training, classes, seed=seed, progress=_say)
    labels = np.arange(samples) % classes
    drawn = _samples(bundle, labels, seed, guidance=guidance, top_k=top_k, top_p=top_p)
    reconstructed, mean_fill = _psnr(bundle, held_out[0][: 4 * _BATCH])
    features = classifier(drawn)[1], classifier(held_out[0])[1]
    return {
        "classifier_accuracy": classifier.accuracy(*held_out),
        "class_accuracy": classifier.accuracy(drawn, labels),
        "spread": spread_within_classes(features[0], labels) / spread_within_classes(features[1], held_out[1]),
        "nearest": float(
            np.median(nearest_distances(drawn, training[0])) / np.median(nearest_distances(held_out[0], training[0]))
        ),
        "psnr": reconstructed,
        "psnr_of_mean_fill": mean_fill,
    } | losses


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


def _pictures(source: Source, size: int, enlarge: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` pictures, evenly spread over the source, at the model's size, and their labels."""
    images, labels = [], []
    for batch in epoch_batches(Spread(source, count), size, _BATCH, enlarge=enlarge):
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
