"""`var-jax benchmark`: measures how fast this machine samples, trains, encodes, loads pictures and compiles."""

from __future__ import annotations

import argparse

from var_jax.benchmark import commands
from var_jax.cli.options import add_guidance, add_limits
from var_jax.errors import InputError

TAKES_OVERRIDES = True
_AGAINST = "a checkout of FoundationVision/VAR (PyTorch installed), to run in turn with this package"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="WHAT", required=True)
    sample = verbs.add_parser("sample", help="labels to pictures, everything in one program")
    _add_model(sample, "1", directory=True)
    _add_dtype(sample)
    add_limits(sample)
    train = verbs.add_parser("train", help="a step of a transformer's training")
    _add_model(train, "8")
    _add_dtype(train)
    _add_training(train)
    tokenize = verbs.add_parser("tokenize", help="pictures to tokens")
    _add_model(tokenize, "8", directory=True)
    data = verbs.add_parser("data", help="a folder of JPEG files to batches")
    data.add_argument("--folder", metavar="DIR", help="pictures in one sub-folder per class (default: made)")
    data.add_argument("--pictures", type=int, default=200, help="pictures to make, of 500 pixels (default 200)")
    data.add_argument("--size", type=int, default=256, help="side of the squares cut out, in pixels (default 256)")
    data.add_argument("--batch", type=int, default=16, help="pictures per batch (default 16)")
    data.add_argument("--batches", type=int, default=16, help="batches per turn (default 16)")
    data.add_argument("--workers", type=int, default=1, help="processes that read; 0: this one (default 1)")
    compile_ = verbs.add_parser("compile", help="seconds until a program could run, without a cache and with one")
    compile_.add_argument("--program", choices=("sample", "train"), default="sample", help="default sample")
    _add_preset(compile_)
    compile_.add_argument("--batch", type=int, default=1, help="pictures per call (default 1)")
    _add_dtype(compile_)
    add_guidance(compile_)
    _add_training(compile_)
    for name, verb in verbs.choices.items():
        repeats = 1 if name == "compile" else 7
        verb.add_argument("--repeats", type=int, default=repeats, help=f"calls that count (default {repeats})")
        verb.add_argument("--json", metavar="FILE", help="write all figures to this file")
        if name != "compile":
            verb.add_argument("--against", metavar="DIR", help=_AGAINST)


def _add_preset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="d16", help="d8, d16, d30, d36-s ... with drawn weights (default d16)")
    parser.add_argument("--pyramid", help="256, 512, 1024, or sides like 1,2,3,4 (default: the preset's)")
    parser.add_argument("--channels", type=int, default=160, help="base width of the tokenizer (default 160)")


def _add_model(parser: argparse.ArgumentParser, batch: str, directory: bool = False) -> None:
    _add_preset(parser)
    if directory:
        parser.add_argument("--model", metavar="DIR", help="a model directory instead of the preset")
    parser.add_argument("--batch", default=batch, help=f"pictures per call; several like 1,4 (default {batch})")


def _add_dtype(parser: argparse.ArgumentParser) -> None:
    text = "compute type (default: float32 on CPUs, bfloat16 elsewhere)"
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help=text)


def _add_training(parser: argparse.ArgumentParser) -> None:
    kinds = "xla; splash on TPUs; cudnn on NVIDIA GPUs; plain, to compare with (default xla)"
    parser.add_argument("--attention", choices=("xla", "plain", "splash", "cudnn"), default="xla", help=kinds)
    source = "input of a step (default pictures)"
    parser.add_argument("--from", dest="source", choices=("pictures", "tokens"), default="pictures", help=source)
    parser.epilog = "--config.key=value changes other keys of the training config, like remat or accumulate."


def run(args: argparse.Namespace) -> None:
    if args.overrides and args.verb not in ("train", "compile"):
        raise InputError(f"{args.overrides[0]}: works with train and compile only, which have a config")
    getattr(commands, args.verb)(args)
