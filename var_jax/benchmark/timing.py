"""Seconds of calls: the first apart, the later ones as median and range; several kinds of calls in turn."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from var_jax.errors import InputError

_COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX says so once a program, found in the cache or not
_PAUSE = 0.3  # seconds between turns: threads of the other side that still spin for work have gone to sleep by then


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one kind of call.

    Attributes:
      first: of the first call, which compiles.
      seconds: of the calls that count.
    """

    first: float
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the calls that count."""
        return statistics.median(self.seconds)

    @property
    def compiling(self) -> float:
        """What the first call took beyond a median one."""
        return max(self.first - self.median, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        low, high = min(self.seconds), max(self.seconds)
        times = {"median": self.median, "low": low, "high": high, "first_call": self.first}
        return times | {"compiling": self.compiling, "seconds": list(self.seconds)}


def timed(call: Callable[[], Any]) -> float:
    """Seconds until all that `call` returns is there."""
    since = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - since


def take_turns(
    runs: Mapping[str, Callable[[], float]], repeats: int, warmup: int = 1, pause: float = _PAUSE, again: int = 0
) -> dict[str, Timing]:
    """Timings of several kinds of calls, one of each in turn, so that whatever else the machine does meets all.

    Args:
      runs: by name; each makes one call and returns the seconds that it took.
      repeats: calls of each that count.
      warmup: calls between the first and those that count.
      pause: seconds before a turn, where there are several kinds.
      again: calls at the beginning of a turn that do not count, where there are several kinds. The first one fetches
        what the machine took away while the others ran, like memory that was given back.

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
    """The reference's seconds over ours, pair by pair; above 1 we are ahead."""
    return [theirs / own for own, theirs in zip(ours.seconds, reference.seconds, strict=True)]


@contextlib.contextmanager
def compilations() -> Iterator[list[float]]:
    """Seconds of every program that JAX compiles, or finds in its cache, inside the block."""
    found: list[float] = []

    def heard(event: str, seconds: float, **_: Any) -> None:
        if event == _COMPILED:
            found.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)
