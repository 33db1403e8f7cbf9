"""`var-jax reconstruct`: draws pictures and their reconstructions scale by scale, as one strip."""

from __future__ import annotations

import argparse

import numpy as np

from var_jax.bundle import load
from var_jax.data.images import centre_crop, read_image
from var_jax.errors import printable
from var_jax.generation.pictures import check_picture_path, grid, save_picture, to_uint8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture files; the central square is used")
    parser.add_argument("--model", required=True, metavar="DIR", help="a model directory")
    parser.add_argument("--out", required=True, metavar="FILE", help="the strip, as .png")


def run(args: argparse.Namespace) -> None:
    check_picture_path(args.out)
    pictures = [read_image(path) for path in args.images]
    bundle = load(args.model)
    pyramid = bundle.tokenizer.config.pyramid
    rows = []
    for path, picture in zip(args.images, pictures, strict=True):
        original = centre_crop(picture, bundle.tokenizer.config.image_size)
        tokens = bundle.encode(original[None])
        scales = [to_uint8(bundle.decode(tokens, n + 1)[0]) for n in range(len(pyramid))]
        rows += [original, *scales]
        error = np.mean((scales[-1].astype(np.float64) - original) ** 2)
        psnr = 10 * np.log10(255.0**2 / error) if error else float("inf")
        print(f"{printable(path)}: PSNR {psnr:.2f} dB from all {len(pyramid)} scales", flush=True)
    captions = ["original", *pyramid.names]
    save_picture(args.out, grid(np.stack(rows), len(captions), captions))
    print(f"wrote {args.out}")
