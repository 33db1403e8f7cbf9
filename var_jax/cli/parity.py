"""`var-jax parity`: the PyTorch reference beside this package at real size, on drawn weights."""

from __future__ import annotations

import argparse

from var_jax.benchmark.parity import tokenizer_parity
from var_jax.pyramid import Pyramid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reference", required=True, metavar="DIR", help="a checkout of FoundationVision/VAR")
    parser.add_argument("--pyramid", default="256", help="256, 512, 1024, or sides like 1,2,3,4 (default 256)")
    parser.add_argument("--channels", type=int, default=160, help="base width of the tokenizer (default 160)")
    parser.add_argument("--batch", type=int, default=1, help="pictures (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and pictures (default 0)")


def run(args: argparse.Namespace) -> None:
    rows = tokenizer_parity(args.reference, Pyramid.parse(args.pyramid), args.channels, args.batch, args.seed)
    print("| quantity | largest difference | over the largest magnitude |")
    print("|---|---|---|")
    for row in rows:
        print(f"| {row.name} | {row.max_abs:.3g} | {row.relative:.3g} |")
