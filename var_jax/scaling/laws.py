"""All laws of a table at once: over parameters, tokens and C_min, and their prediction for the largest model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from var_jax.errors import InputError
from var_jax.scaling.curves import Curve, Front, front
from var_jax.scaling.fit import Interval, PowerLaw, Prediction, fit_power_law, predict

NONE, FITTED = "none", "fitted"
SHOWN = ("loss_last", "loss", "error_last", "error")  # the panels of the paper's Figures 5 and 6
SYMBOLS = {"n": "N", "tokens": "T", "flops": "C"}  # the paper's, of the quantities that laws are over
_TOKEN_POINTS = 12
Irreducible = Mapping[str, float | None]


@dataclasses.dataclass(frozen=True)
class FigureLaws:
    """The laws of one figure.

    Attributes:
      figure: name of the figure's column.
      laws: by "n", of final values over parameters; by "tokens", of the best of any model over tokens seen; by
        "flops", of the Pareto front over training compute, one point per model. Those that the points allow.
      points: (x, y) that each law was fitted to.
      front: the whole Pareto front.
      held_out: the prediction for the largest model from the others, and its actual value.
      why: law -> reason, for laws that are missing.
    """

    figure: str
    laws: dict[str, PowerLaw]
    points: dict[str, tuple[np.ndarray, np.ndarray]]
    front: Front | None
    held_out: tuple[Prediction, float] | None
    why: dict[str, str]

    @property
    def letter(self) -> str:
        """The paper's symbol for the figure."""
        return "L" if self.figure.startswith("loss") else "Err"

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        held_out = None
        if self.held_out is not None:
            guess, reached = self.held_out
            held_out = {"n": guess.x, "expected": guess.expected, "interval": guess.interval}
            held_out |= {"reached": reached, "inside": reached in guess.interval}
        laws = {name: dataclasses.asdict(law) for name, law in self.laws.items()}
        return {
            "laws": dict.fromkeys(SYMBOLS) | laws,
            "points": {name: [list(map(float, part)) for part in both] for name, both in self.points.items()},
            "largest_model_held_out": held_out,
            "why_not": self.why,
        }


def parse_irreducible(text: str, figures: Sequence[str]) -> Irreducible:
    """Parses "none", "fitted", or "loss=5.0,loss_last=4.5" into values by figure; figures not named have none."""
    if text in (NONE, FITTED):
        return dict.fromkeys(figures, 0.0 if text == NONE else None)
    found: dict[str, float | None] = dict.fromkeys(figures, 0.0)
    for part in text.split(","):
        name, equals, value = part.partition("=")
        try:
            number = None if value == FITTED else float(value)
        except ValueError:
            equals = ""
        if not equals or name not in found or (number is not None and not 0 <= number < float("inf")):
            raise InputError(
                f"irreducible '{part}': expected {NONE}, {FITTED}, or FIGURE=VALUE with one of {', '.join(figures)}"
            )
        found[name] = number
    return found


def all_laws(curves: Sequence[Curve], irreducible: Irreducible, seed: int = 0) -> list[FigureLaws]:
    """The laws of every figure that all curves end with.

    Raises:
      InputError: for fewer than three models.
    """
    if len(curves) < 3:
        raise InputError(f"{len(curves)} models: a law needs three or more; add sizes to the sweep")
    figures = [name for name in irreducible if all(np.isfinite(c.figures.get(name, [np.nan])[-1]) for c in curves)]
    return [_figure_laws(curves, name, irreducible[name], seed) for name in figures]


def _figure_laws(curves: Sequence[Curve], figure: str, offset: float | None, seed: int) -> FigureLaws:
    n, final = np.array([c.n for c in curves]), np.array([c.final(figure) for c in curves])
    points, why, whole = {"n": (n, final)}, {}, None
    try:
        whole = front(curves, figure, "flops")
        points["flops"] = whole.points()
        points["tokens"] = _thinned(front(curves, figure, "tokens"))
    except InputError as error:
        why["flops"] = why["tokens"] = str(error)

    laws: dict[str, PowerLaw] = {}
    for name, (x, y) in points.items():
        try:
            laws[name] = fit_power_law(x, y, offset, seed)
        except InputError as error:
            why[name] = str(error)
    held_out = None
    try:
        held_out = predict(n[:-1], final[:-1], n[-1], offset, seed), float(final[-1])
    except InputError as error:
        why["held_out"] = str(error)
    laws = {name: laws[name] for name in SYMBOLS if name in laws}
    return FigureLaws(figure, laws, points, whole, held_out, why)


def _thinned(best: Front) -> tuple[np.ndarray, np.ndarray]:
    """A dozen points of a front, evenly spread in log, since neighbours on it share evaluations."""
    places = np.unique(np.linspace(0, len(best.x) - 1, _TOKEN_POINTS).round().astype(int))
    return best.x[places], best.y[places]


def markdown(laws: Sequence[FigureLaws], curves: Sequence[Curve]) -> str:
    """Three tables: the models' last figures, the laws, and the smaller models' prediction for the largest."""
    names = [own.figure for own in laws]
    rows = [f"| model | N | tokens | FLOP | {' | '.join(names)} |", "|---" * (4 + len(names)) + "|"]
    for curve in curves:
        last = " | ".join(f"{curve.final(name):.4f}" for name in names)
        rows.append(f"| {curve.model} | {curve.n:,.0f} | {curve.tokens[-1]:.3g} | {curve.flops[-1]:.3g} | {last} |")
    rows += ["", "| figure | over | law | exponent, 95 % | E, 95 % | Pearson | scatter | points |", "|---" * 8 + "|"]
    for own in laws:
        for name, law in own.laws.items():
            found = law.irreducible_interval
            cells = [own.figure, SYMBOLS[name], law.equation(SYMBOLS[name], own.letter)]
            cells += [f"{law.exponent:.4f} {_range(law.exponent_interval)}"]
            cells += ["" if found is None else f"{law.irreducible:.3f} {_range(found)}"]
            cells += [f"{law.pearson:.4f}", f"{law.noise:.2%}", str(law.points)]
            rows.append(f"| {' | '.join(cells)} |")
    rows += ["", "| figure | largest model by the others, 95 % | reached |", "|---|---|---|"]
    for own in laws:
        if own.held_out is not None:
            guess, reached = own.held_out
            rows.append(f"| {own.figure} | {guess.expected:.4f} {_range(guess.interval)} | {reached:.4f} |")
    return "\n".join(rows) + "\n"


def _range(interval: Interval) -> str:
    return f"({interval.low:.4f} to {interval.high:.4f})"


def lines(laws: Sequence[FigureLaws]) -> list[str]:
    """Lines for a terminal: one per law, and one per prediction."""
    shown = []
    for own in laws:
        for name, law in own.laws.items():
            low, high = law.exponent_interval
            shown.append(
                f"{own.figure:12} {law.equation(SYMBOLS[name], own.figure):48} exponent {law.exponent:.4f} "
                f"[{low:.4f}, {high:.4f}]  Pearson {law.pearson:.4f}  {law.points} points"
            )
        if own.held_out is not None:
            guess, reached = own.held_out
            verdict = "inside" if reached in guess.interval else "outside"
            shown.append(
                f"{own.figure:12} largest model by the others: {guess.expected:.4f} "
                f"[{guess.interval.low:.4f}, {guess.interval.high:.4f}], reached {reached:.4f} ({verdict})"
            )
        shown += [f"{own.figure:12} no law over {name}: {why}" for name, why in own.why.items() if name != "held_out"]
    return shown
