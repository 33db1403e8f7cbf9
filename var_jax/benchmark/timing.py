"""Timing of calls: the first apart, the later ones as median and range; several kinds of calls in turn."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from var_jax.errors import InputError

_COMPILED = "/jax/core/compile/backend_compile_duration"  # an event per program, found in the cache or not
_PAUSE = 0.3  # seconds between turns: after it, the other side's threads no longer spin for work


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one kind of call.

    Attributes:
      first: seconds of the first call, which compiles.
      seconds: seconds of each call that counts.
    """

    first: float
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds of the calls that count."""
        return statistics.median(self.seconds)

    @property
    def compiling(self) -> float:
        """Seconds that the first call took beyond the median."""
        return max(self.first - self.median, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        low, high = min(self.seconds), max(self.seconds)
        times = {"median": self.median, "low": low, "high": high, "first_call": self.first}
        return times | {"compiling": self.compiling, "seconds": list(self.seconds)}


def progress(text: str) -> None:
    """Prints a line about the work in progress."""
    print(f"... {text}", flush=True)


def timed(call: Callable[[], Any]) -> float:
    """Seconds until the whole result of `call` is there."""
    since = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - since


def take_turns(
    runs: Mapping[str, Callable[[], float]], repeats: int, warmup: int = 1, pause: float = _PAUSE, again: int = 0
) -> dict[str, Timing]:
    """Times several kinds of calls, one of each in turn, so that other load on the machine affects all alike.

    Args:
      runs: functions by name; each makes one call and returns its seconds.
      repeats: calls of each kind that count.
      warmup: calls between the first and those that count.
      pause: seconds before a turn, if there are several kinds.
      again: calls at the beginning of a turn that do not count, if there are several kinds. The first one restores
        resources that the machine took away while the others ran, like memory that was given back.

    Raises:
      InputError: if `repeats` is not positive.
    """
    if repeats < 1:
        raise InputError(f"repeats {repeats}: expected 1 or more")
    first = {name: run() for name, run in runs.items()}
    for _ in range(warmup):
        for run in runs.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            if len(runs) > 1:
                time.sleep(pause)
                for _ in range(again):
                    run()
            seconds[name].append(run())
    return {name: Timing(first[name], tuple(seconds[name])) for name in runs}


def ratios(ours: Timing, reference: Timing) -> list[float]:
    """The reference's seconds over ours, pair by pair; above 1, ours is faster."""
    return [theirs / own for own, theirs in zip(ours.seconds, reference.seconds, strict=True)]


@contextlib.contextmanager
def compilations() -> Iterator[list[float]]:
    """Seconds of every program that JAX compiles, or finds in its cache, inside the block."""
    found: list[float] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        if event == _COMPILED:
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
