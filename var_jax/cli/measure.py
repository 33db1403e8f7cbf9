"""`var-jax measure`: judges a trained model by a classifier of its own data's real pictures."""

from __future__ import annotations

import argparse

from var_jax.cli.options import add_limits
from var_jax.evaluation.small_data import measure
from var_jax.formats.atomic import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="a transformer's training directory")
    parser.add_argument("--samples", type=int, default=500, help="pictures to draw, over all classes (default 500)")
    add_limits(parser)
    parser.add_argument("--real", type=int, default=6000, help="real training pictures to look at (default 6000)")
    parser.add_argument(
        "--counted", type=int, default=20_000, help="training pictures that the unigram model counts (default 20000)"
    )
    parser.add_argument(
        "--efficientnet",
        metavar="FILE",
        help="EfficientNet-Lite0's weights, for a Frechet distance on its features too",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file")


def run(args: argparse.Namespace) -> None:
    sampling = (args.samples, args.guidance, args.top_k, args.top_p)
    figures = measure(args.model, *sampling, args.real, counted=args.counted, efficientnet=args.efficientnet)
    for name, value in figures.items():
        print(f"{name:36} {value:.4f}")
    if args.json:
        write_json(args.json, figures)
