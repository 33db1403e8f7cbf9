"""Power laws y = E + (beta x)^alpha through a few points, with intervals that hold for six to twelve of them.

Noise is assumed to be relative to y, which for a loss far above zero is the same as in log-log. For a given alpha
the remaining parameters are linear (E, if it is fitted, and the factor of x^alpha), so a fit is a search over alpha
alone.

Intervals: with so few models the usual percentile bootstrap is too narrow. Here the bootstrap finds the threshold of
a test instead. An exponent belongs to the interval if forcing it costs the fit no more than the true exponent costs
95 % of data sets drawn from the fit with its own noise (the residuals' standard deviation, corrected for the fitted
parameters). Without E this is Student's interval. Noise is everything that moves a model off the line: its seed, its
learning rate, and any departure from a power law.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from var_jax.errors import InputError

LEVEL = 0.95
_GRID, _OFFSETS = 201, 61
_FITTED_RANGE = (2e-3, 6.0)  # of -alpha if E is fitted
_GIVEN_RANGE = (-8.0, 8.0)  # of alpha if E is given
_FAR = 150.0  # searched exponents may be this much worse than the best fit, in variances of the noise
_PERFECT = 1e-12  # a smaller sum of squares is rounding: noise counts as a millionth at least
_FEW_FAR = 2500.0  # like _FAR for one or two degrees of freedom, whose 95 % lies far out


class Interval(NamedTuple):
    """Both ends of a 95 % interval; `in` says whether a value lies between them."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """Length of the interval."""
        return self.high - self.low

    def __contains__(self, value: Any) -> bool:
        return self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """y = irreducible + (exp(log_beta) x)^exponent.

    Attributes:
      exponent, exponent_interval: alpha.
      log_beta: natural logarithm of beta; beta itself exceeds any float for flat laws.
      irreducible: E.
      irreducible_interval: interval of E if it was fitted, else None.
      pearson: correlation of ln x and ln(y - E).
      noise: standard deviation of the points about the law, relative to y.
      points: number of points.
    """

    exponent: float
    exponent_interval: Interval
    log_beta: float
    irreducible: float
    irreducible_interval: Interval | None
    pearson: float
    noise: float
    points: int

    def __call__(self, x: np.ndarray | float) -> np.ndarray:
        """The law at x."""
        return self.irreducible + np.exp(self.exponent * (np.log(x) + self.log_beta))

    def equation(self, x: str = "X", y: str = "L") -> str:
        """The law as text, like "L = 4.50 + (0.0023 N)^-0.230"."""
        offset = f"{self.irreducible:.3g} + " if self.irreducible else ""
        return f"{y} = {offset}({power_of_ten(self.log_beta)} {x})^{self.exponent:.3g}"


class Prediction(NamedTuple):
    """A law's prediction for one more point: the expected value, and the 95 % interval of a single run."""

    x: float
    expected: float
    interval: Interval


def power_of_ten(log_value: float) -> str:
    """Formats exp(log_value) with three digits, however large or small: "2.34e+120"."""
    exponent = math.floor(log_value / math.log(10))
    digits = math.exp(log_value - exponent * math.log(10))
    return f"{digits * 10.0**exponent:.3g}" if -3 <= exponent <= 3 else f"{digits:.2f}e{exponent:+d}"


def fit_power_law(
    x: Sequence[float], y: Sequence[float], irreducible: float | None = 0.0, seed: int = 0, draws: int = 1000
) -> PowerLaw:
    """Fits a law through points (x, y), with 95 % intervals.

    Args:
      x, y: positive numbers; y above `irreducible`.
      irreducible: E, or None to fit it, not below 0.
      seed, draws: seed and number of draws of the bootstrap.

    Raises:
      InputError: for points that are too few, not positive, or all at one x.
    """
    return _Fit(x, y, irreducible).law(seed, draws)


def predict(
    x: Sequence[float],
    y: Sequence[float],
    at: float,
    irreducible: float | None = 0.0,
    seed: int = 0,
    draws: int = 1000,
) -> Prediction:
    """Fits the law and predicts one more run at `at`; see `fit_power_law`."""
    return _Fit(x, y, irreducible).prediction(at, seed, draws)


class _Fit:
    """Points, a grid of exponents about the best one, and the sum of squares that each leaves.

    Attributes:
      log_x: [n] logarithms of x less their mean, which is `centre`.
      y: [n].
      offset: E, or None if it is fitted.
      alphas: [A] exponents around the best one.
      left: [A] sums of squares, relative to y.
      best, least: the best exponent, between the grid's points, and its sum of squares.
    """

    def __init__(self, x: Sequence[float], y: Sequence[float], offset: float | None) -> None:
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        needed = 3 if offset is not None else 4
        if x.shape != y.shape or x.ndim != 1 or len(x) < needed:
            raise InputError(
                f"{len(y)} points: a power law with its interval needs {needed} or more; train more models"
            )
        if not (np.all(np.isfinite(x) & np.isfinite(y)) and x.min() > 0 and y.min() > (offset or 0.0)):
            raise InputError(
                f"points from x {x.min():g}, y {y.min():g}: expected x above 0 and y above {offset or 0:g}; "
                "leave such models out, or give a lower irreducible part"
            )
        if np.ptp(np.log(x)) < 1e-9:
            raise InputError("all points lie at one x: a power law needs models of several sizes")
        log_x = np.log(x)
        self.log_x, self.centre, self.y, self.offset = log_x - log_x.mean(), float(log_x.mean()), y, offset
        self._search()

    @property
    def freedom(self) -> int:
        """Points less fitted parameters."""
        return len(self.y) - (3 if self.offset is None else 2)

    @property
    def sigma(self) -> float:
        """The noise, relative to y."""
        return math.sqrt(self.least / self.freedom)

    def _search(self) -> None:
        """Finds the best exponent, and a grid of those that are not far worse: by four rounds, each finer."""
        if self.offset is None:
            alphas = -np.geomspace(*_FITTED_RANGE, 4 * _GRID)[::-1]
        else:
            alphas = np.linspace(*_GIVEN_RANGE, 40 * _GRID)
        far = (_FAR if self.freedom > 2 else _FEW_FAR) / self.freedom
        for _ in range(4):
            self.alphas, self.left = alphas, self.unexplained(self.y[None], alphas)[0]
            place = int(np.argmin(self.left))
            fine = np.linspace(alphas[max(place - 1, 0)], alphas[min(place + 1, len(alphas) - 1)], _GRID)
            between = self.unexplained(self.y[None], fine)[0]
            self.best, self.least = float(fine[np.argmin(between)]), max(float(between.min()), _PERFECT)
            near = np.flatnonzero(self.left <= self.least * (1 + far))
            low, high = (near[0], near[-1]) if len(near) else (place, place)
            alphas = np.linspace(alphas[max(low - 1, 0)], alphas[min(high + 1, len(alphas) - 1)], _GRID)

    def unexplained(self, y_BxN: np.ndarray, alphas_A: np.ndarray, offset: float | None = None) -> np.ndarray:
        """[B, A] sums of squares, relative to y, that the best law of each exponent leaves in each data set."""
        offset = self.offset if offset is None else offset
        weights = 1.0 / self.y
        target = (y_BxN - (offset or 0.0)) * weights
        columns_AxN = np.exp(np.outer(alphas_A, self.log_x)) * weights
        columns_AxN /= np.linalg.norm(columns_AxN, axis=1, keepdims=True)
        total = np.sum(target**2, axis=1, keepdims=True)
        along = target @ columns_AxN.T
        left = total - along**2
        if offset is not None:
            return np.maximum(left, 0.0)
        rest_AxN = weights - (columns_AxN @ weights)[:, None] * columns_AxN
        size_A = np.sum(rest_AxN**2, axis=1)
        constant = target @ rest_AxN.T / size_A
        left = np.where(constant > 0, left - constant**2 * size_A, left)  # E is not below 0
        factor = along - constant * (columns_AxN @ weights)
        flat = total - (target @ weights)[:, None] ** 2 / (weights @ weights)
        return np.maximum(np.where((constant > 0) & (factor <= 0), flat, left), 0.0)  # and nothing rises to it

    def coefficients(self, y_BxN: np.ndarray, alpha_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """E [B] and the factor [B] of x^alpha for each data set at its exponent."""
        weights = 1.0 / self.y
        column = np.exp(alpha_B[:, None] * self.log_x) * weights
        square = np.sum(column**2, axis=1)
        if self.offset is None:
            target, mixed = y_BxN * weights, column @ weights
            determinant = square * (weights @ weights) - mixed**2
            constant = (square * (target @ weights) - mixed * np.sum(column * target, axis=1)) / determinant
            constant = np.maximum(constant, 0.0)
        else:
            constant = np.full(len(alpha_B), self.offset)
        target = (y_BxN - constant[:, None]) * weights
        return constant, np.sum(column * target, axis=1) / square

    def _at_best(self) -> tuple[float, float]:
        constant, factor = self.coefficients(self.y[None], np.array([self.best]))
        return float(constant[0]), float(factor[0])

    def drawn(self, seed: int, draws: int) -> np.ndarray:
        """[draws, n] data sets like this one, if the law and its noise were true."""
        constant, factor = self._at_best()
        expected = constant + factor * np.exp(self.best * self.log_x)
        noise = np.random.default_rng(seed).standard_normal((draws, len(self.y)))
        return expected + self.y * self.sigma * noise

    def law(self, seed: int, draws: int) -> PowerLaw:
        """The law with its intervals."""
        constant, factor = self._at_best()
        again = self.drawn(seed, draws)
        left = self.unexplained(again, self.alphas)
        least = left.min(axis=1)
        cost = self.unexplained(again, np.array([self.best]))[:, 0] - least
        bound = np.quantile(cost / np.maximum(least, 1e-300), LEVEL)
        reducible = np.maximum(self.y - constant, 1e-300)
        return PowerLaw(
            exponent=self.best,
            exponent_interval=_below(self.alphas, self.left, bound, self.least),
            log_beta=math.log(max(factor, 1e-300)) / self.best - self.centre if self.best else 0.0,
            irreducible=constant,
            irreducible_interval=self._offset_interval(again, least, constant) if self.offset is None else None,
            pearson=float(np.corrcoef(self.log_x, np.log(reducible))[0, 1]) if np.ptp(reducible) else 0.0,
            noise=self.sigma,
            points=len(self.y),
        )

    def _offset_interval(self, again: np.ndarray, least: np.ndarray, constant: float) -> Interval:
        cost = self.unexplained(again, self.alphas, constant).min(axis=1) - least
        bound = np.quantile(np.maximum(cost, 0.0) / np.maximum(least, 1e-300), LEVEL)
        offsets = np.linspace(0.0, self.y.min() * (1 - 1e-6), _OFFSETS)
        for _ in range(3):
            left = np.array([self.unexplained(self.y[None], self.alphas, float(one)).min() for one in offsets])
            found = _below(offsets, left, bound, self.least)
            step = offsets[1] - offsets[0]
            offsets = np.linspace(max(found.low - step, 0.0), min(found.high + step, self.y.min()), _OFFSETS)
        return found

    def prediction(self, at: float, seed: int, draws: int) -> Prediction:
        """Predicts one more run from the errors of the same prediction in drawn data sets, relative to their noise."""
        again, place = self.drawn(seed, draws), math.log(at) - self.centre
        left = self.unexplained(again, self.alphas)
        alpha = self.alphas[np.argmin(left, axis=1)]
        sigma = np.sqrt(np.maximum(left.min(axis=1), 1e-300) / self.freedom)

        def at_place(y_BxN: np.ndarray, alpha_B: np.ndarray) -> np.ndarray:
            constant, factor = self.coefficients(y_BxN, alpha_B)
            return constant + factor * np.exp(alpha_B * place)

        expected = float(at_place(self.y[None], np.array([self.best]))[0])
        noise = np.random.default_rng((seed, 1)).standard_normal(draws)
        miss = (expected * (1 + self.sigma * noise) - at_place(again, alpha)) / sigma
        low, high = np.quantile(miss, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        return Prediction(at, expected, Interval(expected + self.sigma * low, expected + self.sigma * high))


def _below(values: np.ndarray, left: np.ndarray, bound: float, least: float) -> Interval:
    """The interval of values whose sum of squares exceeds the best by at most `bound` times the best."""
    excess = left / least - 1.0 - bound
    inside = np.flatnonzero(excess <= 0)
    if not len(inside):
        nearest = float(values[np.argmin(left)])
        return Interval(nearest, nearest)

    def crossing(inner: int, outer: int) -> float:
        if not 0 <= outer < len(values):
            return float(values[inner])
        share = excess[inner] / (excess[inner] - excess[outer])
        return float(values[inner] + share * (values[outer] - values[inner]))

    return Interval(crossing(inside[0], inside[0] - 1), crossing(inside[-1], inside[-1] + 1))
