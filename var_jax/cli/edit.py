"""`var-jax edit`: redraws a part of a picture, or its finer scales, or enlarges it."""

from __future__ import annotations

import argparse

import numpy as np

from var_jax.cli.options import add_model_option, add_sampling_options, load_to_sample, sampling_settings
from var_jax.data.images import read_image
from var_jax.errors import InputError
from var_jax.generation.classes import class_id, numbers_as_names
from var_jax.generation.editing import TASKS, box_mask, extended
from var_jax.generation.pictures import check_picture_path, save_picture
from var_jax.models.reproducible import new_key

_WHITE = 128  # pixels from here up are marked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_option(parser)
    parser.add_argument("--image", required=True, metavar="FILE", help="the picture, of any size")
    tasks = (
        "inpaint: redraw the marked region; outpaint: redraw everything else; class: redraw the region as --class; "
        "vary: redraw the finer scales; upscale: enlarge"
    )
    parser.add_argument("--task", required=True, choices=TASKS, help=tasks)
    region = parser.add_mutually_exclusive_group()
    region.add_argument("--mask", metavar="FILE", help="a picture of the same size, white where marked")
    region.add_argument("--box", type=_numbers, metavar="X0,Y0,X1,Y1", help="mark this box, in pixels")
    region.add_argument("--extend", type=_numbers, metavar="L,T,R,B", help="outpaint: pixels to add at each side")
    parser.add_argument("--class", dest="label", metavar="NAME", help="class name or id (default: no class)")
    parser.add_argument("--keep-scales", type=int, help="number of coarse scales to keep (default: by task)")
    parser.add_argument("--dilate", type=int, default=0, help="tokens around the region to redraw too (default 0)")
    parser.add_argument("--edge", type=int, help="pixels of the soft edge (default: a 32nd of the model's picture)")
    parser.add_argument("--factor", type=int, default=2, help="enlargement of upscale (default 2)")
    parser.add_argument("--out", required=True, metavar="FILE", help="the result, as .png")
    add_sampling_options(parser)


def run(args: argparse.Namespace) -> None:
    settings = sampling_settings(args)
    check_picture_path(args.out)
    image = np.asarray(read_image(args.image))
    image, mask = _marked(args, image)
    bundle = load_to_sample(args.model)
    label = None
    if args.label is not None:
        known = bundle.transformer.config.num_classes, bundle.class_names
        label = class_id(args.label, *known)
        for line in numbers_as_names(args.label, *known, alone=True):
            print(f"note: {line}", flush=True)
    options = {"mask": mask, "label": label, "keep_scales": args.keep_scales, "dilate": args.dilate, "edge": args.edge}
    key = new_key(np.uint32(args.seed))
    edited = bundle.edit(image, args.task, key, factor=args.factor, **options, **settings)
    save_picture(args.out, edited)
    print(f"wrote {args.out}: {edited.shape[1]} x {edited.shape[0]} pixels")


def _marked(args: argparse.Namespace, image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The picture, extended for --extend, and its mask."""
    if args.task == "upscale" and (args.mask or args.box or args.extend):
        raise InputError("--task upscale: enlarges the whole picture; leave out --mask, --box and --extend")
    if args.extend:
        if args.task != "outpaint":
            raise InputError(f"--extend: belongs to --task outpaint, not to {args.task}")
        return extended(image, *args.extend)
    if args.box:
        return image, box_mask(args.box, image.shape[:2])
    return image, np.asarray(read_image(args.mask).convert("L")) >= _WHITE if args.mask else None


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(","))
    if len(numbers) != 4:
        raise ValueError
    return numbers


_numbers.__name__ = "list of four pixels"  # the name in argparse's errors
