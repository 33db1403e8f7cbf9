"""`var-jax parity`: compares this package with the PyTorch reference at real size, on drawn weights."""

from __future__ import annotations

import argparse

from var_jax.benchmark.parity import tokenizer_parity, transformer_parity
from var_jax.errors import InputError
from var_jax.pyramid import Pyramid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reference", required=True, metavar="DIR", help="a checkout of FoundationVision/VAR")
    parser.add_argument("--transformer", metavar="NAME", help="compare d16, d16-s ... instead of the tokenizer")
    parser.add_argument("--pyramid", default="256", help="256, 512, 1024, or sides like 1,2,3,4 (default 256)")
    parser.add_argument("--channels", type=int, default=160, help="base width of the tokenizer (default 160)")
    parser.add_argument("--batch", type=int, default=1, help="pictures (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and inputs (default 0)")


def run(args: argparse.Namespace) -> None:
    pyramid = Pyramid.parse(args.pyramid)
    if len(pyramid) < 2:
        raise InputError(f"pyramid {pyramid}: the reference needs at least two scales")
    if args.transformer:
        rows = transformer_parity(args.reference, args.transformer, pyramid, args.batch, args.seed)
    else:
        rows = tokenizer_parity(args.reference, pyramid, args.channels, args.batch, args.seed)
    print("| quantity | largest difference | over the largest magnitude |")
    print("|---|---|---|")
    for row in rows:
        print(f"| {row.name} | {row.max_abs:.3g} | {row.relative:.3g} |")
