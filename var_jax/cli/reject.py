"""`var-jax reject`: rejection sampling, which keeps the pictures whose class a classifier is surest of."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from var_jax.bundle import Bundle
from var_jax.cli.options import add_limits, chosen_classes, load_to_sample, sampling_settings
from var_jax.errors import InputError
from var_jax.evaluation.rejection import Chooser, Rejection, drawn_for, imagenet_chooser, model_draws, trained_chooser
from var_jax.formats.atomic import atomic_directory
from var_jax.generation.pictures import save_picture

_TRAINED = "trained"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="a model or a transformer's training directory")
    parser.add_argument("--accept", type=float, default=0.25, help="share of drawn pictures to keep (default 0.25)")
    parser.add_argument(
        "--classifier",
        default=_TRAINED,
        metavar="trained|FILE",
        help="trained: a small one, trained on the real pictures of the training directory that --model is (default); "
        "FILE: EfficientNet-Lite0's weights, for models of ImageNet's classes",
    )
    parser.add_argument(
        "--held-out", metavar="DIR", help="with FILE: ImageNet's validation pictures, to measure its accuracy on"
    )
    parser.add_argument("--per-class", type=int, default=50, help="pictures to keep of each (default 50)")
    parser.add_argument("--classes", help="ids or names like 207,980; without it every class")
    add_limits(parser)
    parser.add_argument("--seed", type=int, default=0, help="pictures depend on seed, class and index alone")
    parser.add_argument("--batch", type=int, default=50, help="pictures drawn at a time (default 50)")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder: RANK_CLASS.png and rejection.json")


def run(args: argparse.Namespace) -> None:
    settings = sampling_settings(args)
    each = drawn_for(args.per_class, args.accept)
    if args.batch < 1:
        raise InputError(f"--batch {args.batch}: expected 1 or more")
    bundle = load_to_sample(args.model)
    total = bundle.transformer.config.num_classes
    classes = chosen_classes(args.classes, bundle) if args.classes else list(range(total))
    if total in classes:
        raise InputError(f"--classes '{args.classes}': expected classes known to a classifier, not 'none'")
    with atomic_directory(Path(args.out)) as folder:
        chooser = _chooser(args, bundle)
        print(f"{chooser.name}: right about {chooser.accuracy:.1%} of {chooser.accuracy_of}", flush=True)
        draw = model_draws(bundle, args.seed, **settings)
        rejection = Rejection(draw, chooser.probabilities, args.per_class, args.accept, args.batch)
        pictures = _write(rejection, classes, folder, each)
        report = rejection.report(chooser) | settings | {"seed": args.seed}
        (folder / "rejection.json").write_text(json.dumps(report | {"pictures": pictures}, indent=1) + "\n")
    for name, value in report.items():
        print(f"{name:24} {value:.4f}" if isinstance(value, float) else f"{name:24} {value}")


def _chooser(args: argparse.Namespace, bundle: Bundle) -> Chooser:
    if args.classifier != _TRAINED:
        return imagenet_chooser(args.classifier, bundle.transformer.config.num_classes, args.held_out)
    if args.held_out:
        raise InputError("--held-out: belongs to a classifier from a file; the trained one has its run's own pictures")
    return trained_chooser(args.model, bundle)


def _write(rejection: Rejection, classes: list[int], folder: Path, each: int) -> list[dict[str, Any]]:
    """Saves the kept pictures under names that make classes take turns, as the Inception score needs it."""
    pictures = []
    for done, kept in enumerate(rejection.keep(classes), 1):
        for rank, (index, score, image) in enumerate(zip(kept.indices, kept.scores, kept.images, strict=True)):
            name = f"{rank:05d}_{kept.label:04d}.png"
            save_picture(folder / name, np.asarray(image))
            pictures.append({"file": name, "class": kept.label, "index": int(index), "score": float(score)})
        print(f"{done}/{len(classes)} classes, {done * each} pictures drawn, {len(pictures)} kept", flush=True)
    return pictures
