"""Gain and cost of rejection sampling: class accuracy, Frechet distance and variety against the acceptance rate.

    python -m studies.rejection --model runs/quickstart/var --out rejection.png --json rejection.json

Two small classifiers are trained on separate halves of the real pictures: one chooses, the other judges, because the
accuracy by the one that chose rises on bad pictures as well. Every rate keeps the same number of pictures, so that
Frechet distances can be compared. A rate above the lowest needs fewer drawn pictures; the rest makes further rounds,
and figures are means over rounds.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from studies.command_line import exit_with, options, write_json
from var_jax.bundle import load
from var_jax.errors import InputError
from var_jax.evaluation.classifier import spread_within_classes, train_classifier
from var_jax.evaluation.frechet import frechet_distance, mean_and_covariance
from var_jax.evaluation.rejection import Rejection, drawn_for, model_draws
from var_jax.evaluation.small_data import real_pictures
from var_jax.generation.pictures import check_picture_path
from var_jax.pretrained.efficientnet import ImageNetClassifier

RATES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.125)
_REFERENCE = 2000  # real training pictures of a Frechet distance, at most

Features = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
Say = Callable[[str], None]


class Pool(NamedTuple):
    """Drawn pictures, [classes, drawn per class, ...] each.

    Attributes:
      scores: the choosing classifier's probability of the wanted class.
      chooser_right, judge_right: whether each classifier takes a picture for that class.
      features: by the name of the classifier, the judging one's under "small_classifier".
    """

    scores: np.ndarray
    chooser_right: np.ndarray
    judge_right: np.ndarray
    features: Mapping[str, np.ndarray]


def curve(
    model: str | os.PathLike[str],
    per_class: int = 50,
    rates: Sequence[float] = RATES,
    settings: Mapping[str, float] | None = None,
    efficientnet: str | os.PathLike[str] | None = None,
    real: int = 6000,
    steps: int = 800,
    seed: int = 0,
    say: Say = print,
) -> dict[str, Any]:
    """Draws pictures once, for the lowest rate, and chooses among them for every rate.

    Args:
      model: a transformer's training directory.
      per_class: pictures to keep of each class.
      rates: of acceptance.
      settings: of sampling, by the names of `Bundle.generate`.
      efficientnet: the file of EfficientNet-Lite0's weights, for a Frechet distance on its features too.
      real: training pictures for the two classifiers, half for each.
      steps: of training each classifier.
      seed: of everything drawn.
      say: gets a line now and then.

    Returns:
      "classifiers": held-out accuracies; "held_out": figures of as many held-out real pictures; "rates": one row each.

    Raises:
      InputError: if the directory is no transformer's run, or a rate or a number cannot be.
    """
    if per_class < 2:
        raise InputError(f"{per_class} pictures per class have no spread: expected 2 or more to keep")
    each = {rate: drawn_for(per_class, rate) for rate in rates}
    more = {} if efficientnet is None else {"efficientnet_lite0": ImageNetClassifier.from_file(efficientnet)}
    bundle = load(model)
    classes = bundle.transformer.config.num_classes if bundle.transformer else 0
    training, held_out = real_pictures(model, bundle, real, per_class * classes)
    order = np.random.default_rng(seed).permutation(len(training[0]))
    chooser, judge = (
        train_classifier(training[0][half], training[1][half], classes, steps, seed=seed + number, progress=say)
        for number, half in enumerate(np.array_split(order, 2))
    )
    judges: dict[str, Features] = {"small_classifier": judge, **more}
    reference = {name: mean_and_covariance(of(training[0][order[:_REFERENCE]])[1]) for name, of in judges.items()}
    draw = model_draws(bundle, seed, **(settings or {}))
    pool = _drawn(draw, classes, max(each.values()), chooser, judges, say)
    real_features = {name: of(held_out[0])[1] for name, of in judges.items()}
    spread = spread_within_classes(real_features["small_classifier"], held_out[1])
    return {
        "per_class": per_class,
        "settings": dict(settings or {}),
        "classifiers": {"chooser": chooser.accuracy(*held_out), "judge": judge.accuracy(*held_out)},
        "held_out": _frechet(real_features, reference),
        "rates": [_row(pool, rate, each[rate], per_class, reference, spread) for rate in rates],
    }


def _frechet(
    features: Mapping[str, np.ndarray], reference: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, float]:
    return {
        f"frechet_{name}": frechet_distance(*mean_and_covariance(x), *reference[name]) for name, x in features.items()
    }


def _drawn(draw: Any, classes: int, each: int, chooser: Features, judges: Mapping[str, Features], say: Say) -> Pool:
    """`each` pictures of every class, all of them judged."""
    everything = Rejection(draw, lambda images: chooser(images)[0], each, 1.0)
    parts = []
    for kept in everything.keep(range(classes)):
        order = np.argsort(kept.indices)  # as drawn, so that rounds are alike
        images = kept.images[order]
        found = {name: judge(images) for name, judge in judges.items()}
        judged = np.argmax(found["small_classifier"][0], axis=1) == kept.label
        parts.append((kept.scores[order], kept.right[order], judged, {name: x for name, (_, x) in found.items()}))
        say(f"pictures: {len(parts)}/{classes} classes, {each} each")
    scores, chosen, judged, features = zip(*parts, strict=True)
    by_name = {name: np.stack([part[name] for part in features]) for name in judges}
    return Pool(np.stack(scores), np.stack(chosen), np.stack(judged), by_name)


def _row(
    pool: Pool,
    rate: float,
    each: int,
    per_class: int,
    reference: Mapping[str, tuple[np.ndarray, np.ndarray]],
    spread: float,
) -> dict[str, float]:
    """Figures at one rate, means over rounds of `each` pictures per class."""
    classes, total = pool.scores.shape
    labels = np.repeat(np.arange(classes), per_class)
    rounds = []
    for start in range(0, total - each + 1, each):
        best = start + np.argsort(-pool.scores[:, start : start + each], axis=1, kind="stable")[:, :per_class]
        take = lambda values, best=best: np.concatenate([row[index] for row, index in zip(values, best, strict=True)])
        features = {name: take(values) for name, values in pool.features.items()}
        rounds.append(
            {
                "accuracy": float(np.mean(take(pool.judge_right))),
                "accuracy_by_chooser": float(np.mean(take(pool.chooser_right))),
                "spread": spread_within_classes(features["small_classifier"], labels) / spread,
                **_frechet(features, reference),
            }
        )
    means = {name: float(np.mean([figures[name] for figures in rounds])) for name in rounds[0]}
    return {"acceptance_rate": rate, "drawn": each * classes, "rounds": len(rounds), **means}


def as_table(found: Mapping[str, Any]) -> str:
    """The rows as a table in Markdown."""
    names = [name for name in found["rates"][0] if name not in ("acceptance_rate", "drawn", "rounds")]
    lines = ["| acceptance | drawn | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    for row in found["rates"]:
        values = " | ".join(f"{row[name]:.1%}" if "accuracy" in name else f"{row[name]:.3f}" for name in names)
        lines.append(f"| {row['acceptance_rate']:g} | {row['drawn']} | {values} |")
    real = {"accuracy": found["classifiers"]["judge"], "accuracy_by_chooser": found["classifiers"]["chooser"]}
    real |= {"spread": 1.0, **found["held_out"]}
    values = " | ".join(f"{real[name]:.1%}" if "accuracy" in name else f"{real[name]:.3f}" for name in names)
    return "\n".join([*lines, f"| held-out real pictures | | {values} |"])


def plot(found: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Draws the curve: accuracy, Frechet distances and spread, one panel per figure.

    Raises:
      InputError: without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("the figure needs matplotlib: pip install 'var_jax[figures]'") from None
    rows, frechet = found["rates"], [name for name in found["rates"][0] if name.startswith("frechet_")]
    panels: list[tuple[str, dict[str, str], dict[str, float]]] = [
        ("class accuracy", {"accuracy": "by another classifier", "accuracy_by_chooser": "by the one that chose"}, {}),
        *((f"Frechet distance,\n{name[8:]} features", {name: "kept"}, found["held_out"]) for name in frechet),
        ("spread within classes", {"spread": "kept"}, {"spread": 1.0}),
    ]
    figure = Figure(figsize=(3.4 * len(panels), 3.2), layout="constrained")
    x = [row["acceptance_rate"] for row in rows]
    for axes, (title, names, real) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name, label in names.items():
            axes.plot(x, [row[name] for row in rows], marker="o", label=label)
            if name in real:
                axes.axhline(real[name], color="grey", linestyle="--", label="held-out real pictures")
        axes.set(title=title, xlabel="acceptance rate", xscale="log", xticks=x, xticklabels=[f"{rate:g}" for rate in x])
        axes.minorticks_off()
        axes.invert_xaxis()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the study with the command line's options."""
    parser = options("rejection", __doc__)
    parser.add_argument("--model", required=True, metavar="DIR", help="a transformer's training directory")
    parser.add_argument("--per-class", type=int, default=50, help="pictures to keep of each class (default 50)")
    parser.add_argument("--rates", default=",".join(map(str, RATES)), help="of acceptance")
    parser.add_argument("--guidance", type=float, default=1.5, help="0 is none (default 1.5)")
    parser.add_argument("--top-k", type=int, default=900, help="0 is off (default 900)")
    parser.add_argument("--top-p", type=float, default=0.96, help="0 is off (default 0.96)")
    parser.add_argument("--efficientnet", metavar="FILE", help="EfficientNet-Lite0's weights, for its features too")
    parser.add_argument("--real", type=int, default=6000, help="training pictures for both classifiers (default 6000)")
    parser.add_argument("--steps", type=int, default=800, help="of training each classifier (default 800)")
    parser.add_argument("--out", metavar="FILE", help="the figure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    args = parser.parse_args(argv)
    if args.out:
        check_picture_path(args.out)
    settings = {name: getattr(args, name) for name in ("guidance", "top_k", "top_p")}
    rates = [float(rate) for rate in args.rates.split(",")]
    say = functools.partial(print, flush=True)
    found = curve(args.model, args.per_class, rates, settings, args.efficientnet, args.real, args.steps, say=say)
    print(as_table(found))
    write_json(args.json, found)
    if args.out:
        plot(found, args.out)


if __name__ == "__main__":
    exit_with(main)
