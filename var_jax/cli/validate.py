"""`var-jax validate`: a model's figures over a whole data set, reconstructions and tokens, scale by scale."""

from __future__ import annotations

import argparse
import functools
from typing import Any

import numpy as np

from var_jax.bundle import load
from var_jax.cli.options import add_data_options, data_options, say
from var_jax.data.sources import SPLITS, Source, Spread, make_source
from var_jax.errors import InputError
from var_jax.evaluation.expected import beside
from var_jax.evaluation.protocol import inception_judge, open_reference
from var_jax.evaluation.whole_set import Features, Statistics, table, whole_set
from var_jax.formats.atomic import write_json
from var_jax.pretrained.efficientnet import ImageNetClassifier
from var_jax.pretrained.lpips_file import read_lpips, require_published
from var_jax.training_directory import read_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="a model directory or a training directory")
    parser.add_argument("--split", choices=SPLITS, default="validation", help="the split (default validation)")
    parser.add_argument("--pictures", type=int, help="most pictures to use, evenly spread (default all)")
    parser.add_argument("--enlarge", type=float, help="as in a config's data (default: the run's, else 1.125)")
    parser.add_argument("--batch", type=int, default=48, help="pictures at a time (default 48)")
    parser.add_argument("--lpips", metavar="PATH", help="weights of LPIPS on VGG16, a file or a folder")
    parser.add_argument("--inception", metavar="FILE", help="weights of the 2015 Inception network, for rFID")
    parser.add_argument(
        "--reference", metavar="FILE", help="with --inception: .npz of statistics, for rfid_reference beside rfid"
    )
    parser.add_argument("--efficientnet", metavar="FILE", help="EfficientNet-Lite0's weights, for a distance on it")
    parser.add_argument("--expect", action="store_true", help="print the published tokenizer's figures too")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file")
    add_data_options(parser, "shapes, folder or tfds; without it the data of the training directory", required=False)


def run(args: argparse.Namespace) -> None:
    for name in ("batch", "pictures"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise InputError(f"--{name} {value}: expected 1 or more")
    if args.reference and not args.inception:
        raise InputError("--reference: its statistics are of Inception's features, give --inception FILE too")
    source, enlarge = _source(args)
    lpips = None
    if args.lpips:
        lpips = read_lpips(args.lpips)
        require_published(lpips, args.lpips)
    features, references = _features(args)
    bundle = load(args.model)
    settings = {"enlarge": enlarge, "batch": args.batch, "lpips_params": lpips}
    figures = whole_set(bundle, source, **settings, features=features, references=references, say=say)
    print("\n".join(table(figures, bundle.tokenizer.config.pyramid.names)))
    if args.expect:
        print(beside("tokenizer", figures["tokenizer"]))
    if args.json:
        write_json(args.json, figures, default=lambda array: array.tolist())


def _source(args: argparse.Namespace) -> tuple[Source, float]:
    """The pictures and their enlargement before cropping."""
    if args.kind:
        source, enlarge = make_source(args.kind, args.split, **data_options(args)), 1.125
    else:
        try:
            data = read_run(args.model)["config"]["data"]
        except InputError as error:
            raise InputError(f"{error}; choose the pictures by --kind and its options") from None
        source, enlarge = make_source(data["kind"], args.split, **data["options"]), data["enlarge"]
    source = Spread(source, args.pictures) if args.pictures else source
    return source, enlarge if args.enlarge is None else args.enlarge


def _features(args: argparse.Namespace) -> tuple[dict[str, Features], dict[str, Statistics]]:
    features, references = {}, {}
    if args.inception:
        judge = inception_judge(args.inception)
        features["rfid"] = functools.partial(_pooled, judge.extractor)
        if args.reference:
            reference = open_reference(args.reference, judge)
            if reference.pool is None:
                raise InputError(f"{args.reference}: holds no statistics (mu and sigma); give a file that does")
            references["rfid"] = tuple(reference.pool)
    if args.efficientnet:
        classifier = ImageNetClassifier.from_file(args.efficientnet)
        features["frechet_efficientnet_lite0"] = lambda images: classifier(images)[1]
    return features, references


def _pooled(extractor: Any, images: np.ndarray) -> np.ndarray:
    size = extractor.batch
    return np.concatenate([extractor(images[at : at + size]).pool for at in range(0, len(images), size)])
