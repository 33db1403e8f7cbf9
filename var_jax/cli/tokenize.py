"""`var-jax tokenize`: encodes a data set's crops into a store of tokens, from which stage 2 trains."""

from __future__ import annotations

import argparse

import jax

from var_jax.cli.options import add_data_options, add_process_options, data_options, joined, say
from var_jax.errors import InputError
from var_jax.training.tokenize import Cuts, tokenize


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="tokenizer: a model or training directory")
    parser.add_argument("--out", required=True, metavar="DIR", help="the store; the same command resumes")
    add_data_options(parser, "shapes, folder or tfds")
    parser.add_argument("--crops", type=int, default=1, help="crops per training picture (default 1)")
    parser.add_argument("--flips", action="store_true", help="mirror crops at random, as data.flip does")
    parser.add_argument("--enlarge", type=float, default=1.125, help="as data.enlarge (default 1.125)")
    parser.add_argument("--crop-seed", type=int, default=0, help="seed of the run to take crops of (default 0)")
    parser.add_argument("--pictures-per-file", type=int, default=4096, help="pictures per file (default 4096)")
    parser.add_argument("--batch", type=int, default=32, help="pictures encoded at once (default 32)")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode pictures (default 0: this one)")
    parser.add_argument("--bad-share", type=float, default=0.05, help="most damaged pictures, a share (default 0.05)")
    alone = "hosts that share the work without joining"
    parser.add_argument("--process-index", type=int, default=0, help=f"index of this host among {alone}")
    parser.add_argument("--process-count", type=int, default=1, help=f"number of {alone} (default 1)")
    add_process_options(parser)


def run(args: argparse.Namespace) -> None:
    if args.process_count != 1 or args.process_index:
        if args.processes not in ("auto", "off"):
            raise InputError("--process-count and --processes: give one of the two, the second for hosts that join")
        args.processes = "off"
    with joined(args):
        if jax.process_count() > 1:
            args.process_index, args.process_count = jax.process_index(), jax.process_count()
        tokenize(
            *(args.model, args.kind, data_options(args)),
            Cuts(args.crops, args.enlarge, args.flips, args.crop_seed),
            args.out,
            pictures_per_file=args.pictures_per_file,
            batch_size=args.batch,
            workers=args.workers,
            bad_share=args.bad_share,
            process_index=args.process_index,
            process_count=args.process_count,
            say=say,
        )
