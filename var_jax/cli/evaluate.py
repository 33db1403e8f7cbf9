"""`var-jax evaluate`: FID, sFID, Inception score, precision and recall by the published protocol."""

from __future__ import annotations

import argparse

import jax

from var_jax.cli.options import add_process_options, add_sampling_options, joined, sampling_settings, say
from var_jax.errors import InputError, printable
from var_jax.evaluation.expected import PUBLISHED_SAMPLING, beside, published
from var_jax.evaluation.pictures import Drawing, open_pictures
from var_jax.evaluation.protocol import evaluate, inception_judge, open_reference
from var_jax.evaluation.statistics import write_statistics
from var_jax.formats.atomic import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--samples", required=True, metavar="X", help=".npz, folder of pictures, or model to sample")
    parser.add_argument("--reference", metavar="Y", help=".npz of statistics or pictures, or folder of pictures")
    parser.add_argument("--inception", metavar="FILE", help="weights, .pth (default: in the cache folder)")
    parser.add_argument("--json", metavar="FILE", help="write the report to this file")
    parser.add_argument("--statistics", metavar="FILE", help="write the samples' statistics, as a reference")
    parser.add_argument("--work", metavar="DIR", help="keep features in this folder; the same command resumes")
    parser.add_argument("--count", type=int, help="refuse any other number of samples")
    parser.add_argument(
        "--expect", metavar="NAME", help="print published figures beside ours: d16, d20, d24, d30, d36-s ..."
    )
    parser.add_argument("--half-distances", action="store_true", help="precision and recall from float16 distances")
    parser.add_argument("--batch", type=int, default=64, help="pictures judged at a time (default 64)")
    parser.add_argument("--per-class", type=int, default=50, help="pictures to draw per class (default 50)")
    parser.add_argument("--draw-batch", type=int, default=32, help="pictures drawn at a time (default 32)")
    add_sampling_options(parser, PUBLISHED_SAMPLING)
    add_process_options(parser)


def run(args: argparse.Namespace) -> None:
    with joined(args):
        _evaluate(args)


def _evaluate(args: argparse.Namespace) -> None:
    settings = sampling_settings(args)
    if args.expect:
        published(args.expect)  # an unknown name is refused before hours of work
    samples = open_pictures(args.samples, Drawing(args.per_class, args.seed, args.draw_batch, settings))
    if args.count is not None and samples.count != args.count:
        raise InputError(f"{args.samples}: {samples.count} pictures, --count says {args.count}; find the missing ones")
    judge = inception_judge(args.inception, args.batch)
    reference = open_reference(args.reference, judge) if args.reference else None
    leads = jax.process_index() == 0
    progress = say if leads else lambda text: None
    report, judged = evaluate(samples, reference, judge, args.half_distances, work=args.work, say=progress)
    if not leads:
        return  # all processes have computed the same
    for name, value in report.items():
        if isinstance(value, float):
            print(f"{name:30} {value:.4f}")
    for note in report["notes"]:
        print(f"note: {printable(note)}")
    if args.expect:
        print(beside(args.expect, {name: value for name, value in report.items() if isinstance(value, float)}))
    if args.statistics:
        write_statistics(args.statistics, judged.pool, judged.spatial, samples.count)
    if args.json:
        write_json(args.json, report)
