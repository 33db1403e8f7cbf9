"""`var-jax sample`: draws pictures of chosen classes as a grid, a strip by scale, or a folder or file of many."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from var_jax.bundle import Bundle
from var_jax.cli.options import (
    add_model_option,
    add_process_options,
    add_sampling_options,
    chosen_classes,
    joined,
    load_to_sample,
    sampling_settings,
)
from var_jax.errors import InputError
from var_jax.generation.batching import batches, class_keys
from var_jax.generation.bulk import NpzFile, PngFolder, draw_all, shuffled
from var_jax.generation.classes import label_text
from var_jax.generation.pictures import (
    ANIMATED,
    check_picture_path,
    grid,
    save_animation,
    save_picture,
    strips,
    to_uint8,
)
from var_jax.parallel.mesh import make_mesh

_MOST_DEFAULT_CLASSES = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_option(parser)
    parser.add_argument("--classes", help="ids or names like 207,980 or 'disc, star', or none (default: all classes)")
    parser.add_argument("--per-class", type=int, default=4, help="pictures per class (default 4)")
    parser.add_argument("--batch", type=int, default=8, help="pictures drawn at a time, over all devices (default 8)")
    parser.add_argument("--growth", action="store_true", help="show each picture after every scale")
    where = (
        "a grid as .png; with --growth a strip as .png, or an animation as .gif or .webp; for many a folder, or .npz"
    )
    parser.add_argument("--out", required=True, metavar="FILE|DIR", help=where)
    add_sampling_options(parser)
    add_process_options(parser)


def run(args: argparse.Namespace) -> None:
    settings = sampling_settings(args)
    for name in ("per_class", "batch"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}: expected 1 or more")
    suffix = Path(args.out).suffix.lower()
    many = suffix in ("", ".npz") or args.out.endswith("/")
    if many and args.growth:
        raise InputError(f"--growth: shows scales in one picture; give --out a name like {args.out}.png or .gif")
    if not many:
        check_picture_path(args.out)
        if args.processes not in ("auto", "off"):
            raise InputError(f"--processes: share a folder or an .npz of many pictures; leave it out for {args.out}")
        args.processes = "off"
    with joined(args):
        _draw(args, settings, many)


def _draw(args: argparse.Namespace, settings: dict, many: bool) -> None:
    bundle = load_to_sample(args.model)
    total = bundle.transformer.config.num_classes
    most = total if many else min(total, _MOST_DEFAULT_CLASSES)
    classes = list(range(most)) if args.classes is None else chosen_classes(args.classes, bundle)
    if many:
        return _draw_many(args, bundle, classes, settings)
    drawn = np.concatenate(list(_growth(args, bundle, classes, settings)), axis=1)
    names = ", ".join(label_text(label, total, bundle.class_names) for label in classes)
    if Path(args.out).suffix.lower() in ANIMATED and args.growth:
        save_animation(args.out, [grid(frame, args.per_class) for frame in drawn])
    elif args.growth:
        save_picture(args.out, strips(drawn, bundle.transformer.config.pyramid.names))
    else:
        save_picture(args.out, grid(drawn[-1], args.per_class))
    print(f"wrote {args.out}: a row each for classes {names}")


def _growth(args: argparse.Namespace, bundle: Bundle, classes: list[int], settings: dict) -> Iterator[np.ndarray]:
    """Yields the pictures batch by batch, [S, n, H, W, 3]; S is 1 without --growth."""
    labels = np.repeat(classes, args.per_class)
    keys = class_keys(args.seed, labels, np.tile(np.arange(args.per_class), len(classes)))
    done, started = 0, time.monotonic()
    for rows, new in batches(len(labels), args.batch):
        if args.growth:
            drawn = np.asarray(bundle.grow(labels[rows], keys[rows], **settings))
        else:
            drawn = np.asarray(bundle.generate(labels[rows], keys[rows], **settings))[None]
        done, spent = done + new, time.monotonic() - started
        left = spent / done * (len(labels) - done)
        print(f"{done}/{len(labels)} pictures, {spent:.0f} s, about {left:.0f} s left", flush=True)
        yield drawn[:, :new]


def _draw_many(args: argparse.Namespace, bundle: Bundle, classes: list[int], settings: dict) -> None:
    mesh = make_mesh(devices=jax.local_devices())
    batch = -(-args.batch // mesh.size) * mesh.size  # a multiple of the devices
    bundle, classes = bundle.over(mesh), list(dict.fromkeys(classes))
    labels, indices = shuffled(classes, args.per_class)
    recorded = {"seed": args.seed, "classes": classes, "per_class": args.per_class, **settings}
    recorded |= {"model": bundle.fingerprints, "compute_type": np.dtype(bundle.transformer.module.dtype).name}
    if args.out.endswith(".npz"):
        target = NpzFile(Path(args.out), labels, bundle.tokenizer.config.image_size, recorded)
    else:
        target = PngFolder(Path(args.out), labels, indices, recorded)
    draw = lambda labels, keys: to_uint8(bundle.generate(labels, keys, **settings))
    draw_all(draw, target, labels, indices, args.seed, batch, jax.process_index(), jax.process_count())
    print(f"wrote {args.out}: {len(labels)} pictures in shuffled order")
