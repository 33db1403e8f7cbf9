"""`var-jax sample`: draws pictures of given classes into one grid, a row a class."""

from __future__ import annotations

import argparse
import time

import numpy as np

from var_jax.bundle import check_settings, load
from var_jax.errors import InputError
from var_jax.generation.many import LARGEST_SEED, batches, class_keys
from var_jax.generation.pictures import check_picture_path, grid, save_picture

_MOST_DEFAULT_CLASSES = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="a model directory")
    parser.add_argument("--classes", help="class ids like 207,980; without it every class, up to 16")
    parser.add_argument("--per-class", type=int, default=4, help="pictures of each (default 4)")
    parser.add_argument("--guidance", type=float, default=4.0, help="0 is none (default 4)")
    parser.add_argument("--top-k", type=int, default=900, help="0 is off (default 900)")
    parser.add_argument("--top-p", type=float, default=0.95, help="0 is off (default 0.95)")
    parser.add_argument("--temperature", type=float, default=1.0, help="above 0 (default 1)")
    parser.add_argument("--smooth", action="store_true", help="mix codes instead of drawing one: for looks only")
    parser.add_argument("--seed", type=int, default=0, help="pictures depend on seed, class and index alone")
    parser.add_argument("--batch", type=int, default=8, help="pictures drawn at a time (default 8)")
    parser.add_argument("--out", required=True, metavar="FILE", help="the grid, as .png")


def run(args: argparse.Namespace) -> None:
    check_settings(args.guidance, args.top_k, args.top_p, args.temperature)
    for name in ("per_class", "batch"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}: expected 1 or more")
    if not 0 <= args.seed <= LARGEST_SEED:
        raise InputError(f"--seed {args.seed}: expected 0 to {LARGEST_SEED}")
    check_picture_path(args.out)
    classes = _parse_classes(args.classes)
    bundle = load(args.model)
    if bundle.transformer is None:
        raise InputError(f"{args.model}: has a tokenizer only, import a transformer with it to sample")
    total = bundle.transformer.config.num_classes
    classes = classes or list(range(min(total, _MOST_DEFAULT_CLASSES)))
    if wrong := [label for label in classes if not 0 <= label < total]:
        raise InputError(f"class id {wrong[0]}: this model has classes 0 to {total - 1}")
    labels = np.repeat(classes, args.per_class)
    keys = class_keys(args.seed, labels, np.tile(np.arange(args.per_class), len(classes)))
    settings = {name: getattr(args, name) for name in ("guidance", "top_k", "top_p", "temperature", "smooth")}
    images, started = [], time.monotonic()
    for rows, new in batches(len(labels), args.batch):
        images += list(np.asarray(bundle.generate(labels[rows], keys[rows], **settings)))[:new]
        spent = time.monotonic() - started
        left = spent / len(images) * (len(labels) - len(images))
        print(f"{len(images)}/{len(labels)} pictures, {spent:.0f} s, about {left:.0f} s left", flush=True)
    save_picture(args.out, grid(np.stack(images), args.per_class))
    print(f"wrote {args.out}: a row each for classes {', '.join(map(str, classes))}")


def _parse_classes(text: str | None) -> list[int]:
    if text is None:
        return []
    try:
        classes = [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        classes = []
    if not classes:
        raise InputError(f"--classes '{text}': expected class ids like 207,980")
    return classes
