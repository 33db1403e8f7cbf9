"""The two figures of a scaling study, in the layout of the paper's Figures 5 and 6: four log-log panels each.

Columns: the last scale, all scales. Rows: loss, error rate. The panels show equations and correlations.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_file
from var_jax.scaling.curves import Curve
from var_jax.scaling.fit import PowerLaw
from var_jax.scaling.laws import SHOWN, FigureLaws

_NAMES = {
    "loss_last": ("test loss", "last scale"),
    "loss": ("test loss", "all scales"),
    "error_last": ("token error rate", "last scale"),
    "error": ("token error rate", "all scales"),
}


def new_figure(**settings: Any) -> Any:
    """Makes a matplotlib figure that needs no display.

    Raises:
      InputError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("drawing a figure needs matplotlib: pip install 'var_jax[figures]'") from None
    return Figure(**settings)


def draw_over_n(path: str | os.PathLike[str], laws: Sequence[FigureLaws]) -> None:
    """Draws final values over parameters with the law through them (Figure 5)."""

    def panel(axes: Any, own: FigureLaws) -> PowerLaw | None:
        x, y = own.points["n"]
        law = own.laws.get("n")
        offset = law.irreducible if law else 0.0
        axes.loglog(x, y - offset, "o", color="C0")
        if law is not None:
            _draw_law(axes, law, x, "N", own.letter)
        if own.held_out is not None and own.held_out[0].interval.low > offset:
            guess, _ = own.held_out
            miss = [[guess.expected - guess.interval.low], [guess.interval.high - guess.expected]]
            axes.errorbar([guess.x], [guess.expected - offset], miss, fmt="_", color="C1", label="by smaller models")
        axes.set_xlabel("model parameters N (blocks)")
        return law

    _four_panels(path, laws, panel)


def draw_over_flops(path: str | os.PathLike[str], laws: Sequence[FigureLaws], curves: Sequence[Curve]) -> None:
    """Draws training curves over compute, their Pareto front and the law through it (Figure 6)."""
    new_figure()  # raises the error that names the missing package
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0, 0.9, len(curves)))  # from dark to light

    def panel(axes: Any, own: FigureLaws) -> PowerLaw | None:
        law = own.laws.get("flops")
        offset = law.irreducible if law else 0.0
        for curve, colour in zip(curves, shades, strict=True):
            axes.loglog(curve.flops, curve.figures[own.figure] - offset, "-", color=colour, lw=1, label=curve.model)
        if own.front is not None:
            axes.loglog(own.front.x, own.front.y - offset, "-", color="black", lw=2, alpha=0.4)
        if law is not None:
            x, y = own.points["flops"]
            axes.loglog(x, y - offset, "k.", ms=5)
            _draw_law(axes, law, own.front.x, "C", own.letter)
        axes.set_xlabel("training compute (FLOP)")
        return law

    _four_panels(path, laws, panel)


def _draw_law(axes: Any, law: PowerLaw, points: np.ndarray, name: str, letter: str) -> None:
    x = np.geomspace(points.min(), points.max(), 50)
    axes.loglog(x, law(x) - law.irreducible, "--", color="C3", lw=1)
    interval = law.exponent_interval
    axes.set_title(
        f"{law.equation(name, letter)}\n"
        f"exponent in [{interval.low:.3g}, {interval.high:.3g}], Pearson {law.pearson:.3f}",
        fontsize=8,
    )


def _four_panels(
    path: str | os.PathLike[str], laws: Sequence[FigureLaws], panel: Callable[[Any, FigureLaws], PowerLaw | None]
) -> None:
    figure = new_figure(figsize=(9, 7.5))
    grid = figure.subplots(2, 2)
    by_name = {own.figure: own for own in laws}
    for name, axes in zip(SHOWN, grid.flat, strict=True):
        if name not in by_name:
            axes.set_axis_off()
            continue
        law = panel(axes, by_name[name])
        what, scales = _NAMES[name]
        reduced = f" less {law.irreducible:.3g}" if law is not None and law.irreducible else ""
        axes.set_ylabel(f"{what}{reduced}, {scales}")
        axes.grid(True, which="both", alpha=0.2)
    shown = {
        label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if shown:
        figure.legend(shown.values(), shown, loc="lower center", ncols=min(len(shown), 6), fontsize=7)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    save(figure, path)


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Writes a figure as PNG."""
    with atomic_file(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
