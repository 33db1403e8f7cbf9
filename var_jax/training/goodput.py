"""Goodput: seconds of a training by phase, over all of its runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

from var_jax.parallel.processes import at

PHASES = ("init", "compile", "data", "step", "checkpoint", "evaluation")


class Spent:
    """Seconds that this process has spent in each phase since the object was made, beginning with "init".

    Devices compute while the program goes on, so "step" is the time it waited for them, and "data" the time it waited
    for pictures, whether or not the devices were busy meanwhile.
    """

    def __init__(self) -> None:
        self.run, self.from_step = int(time.time()), 0
        self._begun = self._since = time.monotonic()
        self._phase, self._seconds = "init", dict.fromkeys(PHASES, 0.0)

    @contextlib.contextmanager
    def on(self, phase: str, step: int = 0) -> Iterator[None]:
        """Counts the body's time as `phase`, and as no other; `step` is the training step it belongs to."""
        before = self._phase
        self._switch(phase)
        at(phase, step)
        try:
            yield
        finally:
            self._switch(before)

    def begin(self, step: int) -> None:
        """Ends the phase "init": the loop begins after `step`."""
        self.from_step = step
        self._switch("step")

    def read(self) -> dict[str, float]:
        """This run's entry: its start (seconds since 1970) and first step, its seconds so far, in all and by phase."""
        self._switch(self._phase)
        spent = {phase: round(seconds, 3) for phase, seconds in self._seconds.items()}
        return {"run": self.run, "from_step": self.from_step, "seconds": round(self._since - self._begun, 3), **spent}

    def _switch(self, phase: str) -> None:
        now = time.monotonic()
        self._seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now


def summed(lines: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Sums the seconds of a whole training from the lines of metrics.jsonl.

    Args:
      lines: parsed lines; those with a run's "goodput" count, the last one per run.

    Returns:
      "runs", their number; "seconds", in all and by phase; "done_again": seconds in "step" and "data" for steps that
      a later run had to repeat; "between": seconds between the last line of a run and the next run.
    """
    last: dict[float, dict[str, Any]] = {}
    for line in lines:
        spent = line.get("goodput")  # without "run" the sum at the end of a training that was extended later
        names = ("run", "from_step", "seconds", *PHASES)
        if isinstance(spent, dict) and all(isinstance(spent.get(name), (int, float)) for name in names):
            last[spent["run"]] = {**spent, "reached": line["step"]}
    runs = [last[run] for run in sorted(last)]
    total = {name: sum(run[name] for run in runs) for name in ("seconds", *PHASES)}
    again = between = 0.0
    for run, after in zip(runs, runs[1:], strict=False):
        steps, lost = run["reached"] - run["from_step"], run["reached"] - after["from_step"]
        again += (run["step"] + run["data"]) * max(lost, 0) / max(steps, 1)
        between += max(after["run"] - run["run"] - run["seconds"], 0.0)
    return {"runs": len(runs), **total, "done_again": again, "between": between}


def in_words(total: dict[str, float]) -> str:
    """The result of `summed` as one line of text."""
    whole = max(total["seconds"], 1e-9)
    shares = ", ".join(f"{phase} {total[phase] / whole:.0%}" for phase in PHASES)
    runs = f"{total['runs']:.0f} run{'s'[: total['runs'] > 1]}"
    again = f"; repeated steps {total['done_again'] / whole:.0%}" if total["done_again"] else ""
    return f"{total['seconds']:.0f} s in {runs}: {shares}{again}"
