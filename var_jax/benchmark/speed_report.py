"""The report of a benchmark: a table for people, quantities down and cases across, and everything as JSON."""

from __future__ import annotations

import dataclasses
import shlex
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from var_jax.benchmark import machine, work
from var_jax.benchmark.machine import Limits
from var_jax.benchmark.timing import Timing, ratios


@dataclasses.dataclass(frozen=True)
class Case:
    """One column: a kind of call, timed.

    Attributes:
      title: the column's heading, like "batch 4".
      pictures: pictures per call.
      ours: timing of this package.
      compiled: programs that were compiled, or looked up in the cache, after the first call.
      phases: the least work of a call; empty without `limits` in the report.
      peak_bytes: peak memory so far; 0 if other processes do the work.
      theirs: timing of the reference, in turn with ours, and its peak memory; None: it was not run.
      lanes: processes or threads that shared the work, if pictures per second are also reported for one of them.
    """

    title: str
    pictures: int
    ours: Timing
    compiled: int
    phases: Sequence[work.Phase]
    peak_bytes: int
    theirs: tuple[Timing, int] | None = None
    lanes: int | None = None

    def rows(self, limits: Limits | None) -> dict[str, str]:
        """The column's cells by quantity."""
        t = self.ours
        rows = {"seconds per call": spread(t.seconds), "latency, ms": _figure(1000 * t.median)}
        rows |= self._rate("pictures/s", t)
        if limits:
            flops, least = sum(phase.flops for phase in self.phases), work.least_seconds(self.phases, limits)
            rows |= {"first call, s": _figure(t.first), "of it compiling, s": _figure(t.compiling)}
            rows["GFLOP per picture"] = _figure(flops / self.pictures / 1e9)
            rows["GFLOP/s"] = _figure(flops / t.median / 1e9)
            rows["of the matrix peak"] = f"{work.arithmetic_seconds(self.phases, limits) / t.median:.1%}"
            rows |= {"least seconds": _figure(least), "of the limit": f"{least / t.median:.1%}"}
            rows["compiled after that"] = str(self.compiled)
        rows |= _gibibytes("peak memory, GiB", self.peak_bytes)
        if self.theirs:
            timing, peak = self.theirs
            pairs = ratios(t, timing)
            rows["reference: seconds per call"] = spread(timing.seconds)
            rows |= self._rate("reference: pictures/s", timing)
            rows |= _gibibytes("reference: peak memory, GiB", peak) | {"reference over ours": spread(pairs)}
            rows["pair by pair"] = " ".join(f"{ratio:.2f}" for ratio in pairs)
        return rows

    def _rate(self, name: str, timing: Timing) -> dict[str, str]:
        rate = self.pictures / timing.median
        return {name: _figure(rate)} | ({f"{name}/core": _figure(rate / self.lanes)} if self.lanes else {})

    def to_dict(self, limits: Limits | None) -> dict[str, Any]:
        """Everything, ready for JSON."""
        values: dict[str, Any] = {"case": self.title, "pictures": self.pictures, "ours": self.ours.to_dict()}
        values |= {"pictures_per_second": self.pictures / self.ours.median, "peak_bytes": self.peak_bytes}
        values |= {"compiled_after_first_call": self.compiled}
        if self.lanes:
            values |= {"lanes": self.lanes, "pictures_per_second_per_core": values["pictures_per_second"] / self.lanes}
        if limits:
            phases = [dataclasses.asdict(phase) | {"least_seconds": phase.seconds(limits)} for phase in self.phases]
            values["phases"] = phases
            values["flops"] = sum(phase.flops for phase in self.phases)
            values["share_of_matrix_peak"] = work.arithmetic_seconds(self.phases, limits) / self.ours.median
            values["share_of_limit"] = work.least_seconds(self.phases, limits) / self.ours.median
        if self.theirs:
            values["reference"] = self.theirs[0].to_dict() | {"peak_bytes": self.theirs[1]}
            values["ratios"] = ratios(self.ours, self.theirs[0])
        return values


@dataclasses.dataclass(frozen=True)
class Report:
    """The results of one command.

    Attributes:
      what: the measurement, like "sample".
      settings: the settings of the command.
      cases: the columns.
      limits: the device's limits, or None if no device was at work.
      machine: see `machine.describe`.
      reference_versions: versions in the reference's process; empty without one.
    """

    what: str
    settings: dict[str, Any]
    cases: Sequence[Case]
    limits: Limits | None
    machine: dict[str, Any]
    reference_versions: dict[str, str] = dataclasses.field(default_factory=dict)

    def text(self) -> str:
        """The report for people: settings, machine, table."""
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        lines = [f"{self.what}: {settings}", *machine_lines(self.machine, self.limits, self.reference_versions)]
        columns = [case.rows(self.limits) for case in self.cases]
        return "\n".join([*lines, "", table([case.title for case in self.cases], columns)])

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        values = about(self.what, self.settings, self.machine) | {"reference": self.reference_versions}
        if self.limits:
            values["limits"] = dataclasses.asdict(self.limits)
        return values | {"cases": [case.to_dict(self.limits) for case in self.cases]}


def about(what: str, settings: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    """The first entries of every JSON file of a benchmark."""
    command = shlex.join(["var-jax", *sys.argv[1:]])
    head = {"what": what, "command": command, "settings": settings, "machine": described}
    return head | {"versions": machine.versions()}


def machine_lines(described: dict[str, Any], limits: Limits | None, reference: dict[str, str]) -> list[str]:
    """Lines for people about the machine and the versions that produced the figures."""
    names = ("jax", "jaxlib")
    versions = [f"{name} {version}" for name, version in machine.versions().items() if name in names]
    versions += [f"reference on {name} {version}" for name, version in reference.items()]
    lines = [f"{described['device']} ({described['platform']}), {described['cores']} cores; {', '.join(versions)}"]
    if limits:
        peaks = [f"{name} {value / 1e9:.4g} GFLOP/s" for name, value in limits.matrix_flops.items()]
        lines.append(f"measured limits: matrices {', '.join(peaks)}; memory {limits.memory_bandwidth / 1e9:.4g} GB/s")
    return lines


def table(titles: Sequence[str], columns: Sequence[dict[str, str]]) -> str:
    """Aligns a table with quantities down and cases across; a cell that a case lacks stays empty."""
    names = list(dict.fromkeys(name for column in columns for name in column))
    grid = [["", *titles], *([name, *(column.get(name, "") for column in columns)] for name in names)]
    widths = [max(len(row[index]) for row in grid) for index in range(len(titles) + 1)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in grid
    )


def spread(values: Sequence[float]) -> str:
    """The median, and the range if there is one."""
    ends = f" ({_figure(min(values))} to {_figure(max(values))})" if len(values) > 1 else ""
    return _figure(statistics.median(values)) + ends


def _gibibytes(name: str, count: int) -> dict[str, str]:
    return {name: f"{count / 2**30:.2f}"} if count else {}


def _figure(value: float) -> str:
    """Four significant digits."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"
