"""Makes the tables of docs/tpu.md: runs `var-jax rehearse` for every line, keeps JSON, prints Markdown.

    python -m studies.rehearsals --out rehearsals       # all of them: hours on two cores; goes on where it stopped
    python -m studies.rehearsals --out rehearsals --only var:d30 --print-only

A line is a name and the command's arguments, one after another in this file. A line that has its JSON is not run again.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from studies.command_line import exit_with, options

PRESETS = ("d16", "d20", "d24", "d30", "d36-s")
STORED = "--config.data.store=tokens"
SPLIT = "--config.attention=splash --config.remat=dots_with_no_batch_dims_saveable"

# Training in the fastest way found, the last line from pictures in the place of stored tokens.
TRAINING = {
    "d30, 64 v5p": f"--config var:d30 --topology v5p:4x4x4 {STORED} --config.mesh.fsdp=64 --config.attention=splash "
    "--config.remat=None",
    "d30, 64 v6e": f"--config var:d30 --topology v6e:8x8 {STORED} --config.mesh.fsdp=64 {SPLIT}",
    "d16, 16 v5e": f"--config var:d16 --topology v5e:4x4 {STORED} --config.mesh.fsdp=16 --config.attention=splash",
    "tokenizer, 64 v5e": "--config tokenizer_imagenet256 --topology v5e:8x8 --config.mesh.fsdp=1",
    "d30, 64 v5p, from pictures": "--config var:d30 --topology v5p:4x4x4 --config.mesh.fsdp=64 "
    "--config.attention=splash",
}
# Every published model on slices of 8, 64 and 256 chips, with both kinds of attention.
SLICES = {
    f"{preset}, {topology}, {kind}": f"--config var:{preset} --topology {topology} {STORED} "
    f"--config.mesh.fsdp={fsdp} --config.attention={kind}"
    for preset in PRESETS
    for topology, fsdp in (
        *(("v5e:2x4", 8), ("v5e:8x8", 16), ("v5e:16x16", 16)),
        *(("v5p:2x2x2", 8), ("v5p:4x4x4", 16), ("v5p:4x8x8", 16)),
        *(("v6e:2x4", 8), ("v6e:8x8", 16), ("v6e:16x16", 16)),
    )
    for kind in ("splash", "plain")
}
# d30 with plain attention, and with each change that makes it faster.
BEFORE_AND_AFTER = {
    f"d30, {topology}, fsdp {fsdp}, {changes}": f"--config var:d30 --topology {topology} {STORED} "
    f"--config.mesh.fsdp={fsdp} " + " ".join(f"--config.{change}" for change in changes.split())
    for topology, fsdp in (("v6e:8x8", 64), ("v6e:8x8", 16), ("v5p:4x4x4", 16))
    for changes in (
        "attention=plain remat=nothing_saveable",
        "attention=splash remat=nothing_saveable",
        "attention=splash remat=nothing_saveable accumulate=2",
        "attention=splash remat=products",
        "attention=splash remat=products accumulate=4",
    )
}
# The settings that `--search` finds by itself.
SEARCHES = {
    f"{preset}, {topology}": f"--config var:{preset} --topology {topology} {STORED} --search"
    for preset, topology in (
        ("d30", "v5p:4x4x4"),
        ("d30", "v6e:8x8"),
        ("d16", "v5e:4x4"),
        ("d24", "v5e:8x8"),
        ("d36-s", "v6e:8x8"),
    )
}
SAMPLING = {
    f"{preset}, {chip}": f"--config var:{preset} --what sample --topology {chip}"
    for preset in PRESETS
    for chip in ("v5e:1x1", "v5p:1x1x1", "v6e:1x1")
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the missing lines, then prints the tables."""
    parser = options("rehearsals", __doc__)
    parser.add_argument("--out", required=True, type=Path, help="folder of the reports")
    parser.add_argument("--only", default="", help="lines whose arguments contain this")
    parser.add_argument("--print-only", action="store_true", help="run nothing, print the lines that have their JSON")
    args = parser.parse_args(argv)
    groups = {
        "Training": (TRAINING, training_row),
        "Slices": (SLICES, training_row),
        "Before and after": (BEFORE_AND_AFTER, training_row),
        "Search": (SEARCHES, training_row),
        "Sampling": (SAMPLING, sampling_row),
    }
    for title, (lines, row) in groups.items():
        found = {}
        for name, arguments in lines.items():
            file = args.out / title / f"{name.replace(', ', '_').replace(' ', '_').replace(':', '_')}.json"
            if args.only in arguments and (report := _report(file, arguments, args.print_only)):
                found[name] = report
        if found:
            print(f"\n## {title}\n")
            rows = both_kinds(found) if title == "Slices" else [row(name, report) for name, report in found.items()]
            print("\n".join(table(rows)))


def _report(file: Path, arguments: str, print_only: bool) -> dict | None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists() and not print_only:
        command = [sys.executable, "-m", "var_jax.cli.main", "rehearse", "--quick", *shlex.split(arguments)]
        subprocess.run([*command, "--json", str(file)], check=False)
    return json.loads(file.read_text()) if file.exists() else None


def training_row(name: str, report: dict) -> dict[str, str]:
    """A row of a table of trainings."""
    settings = report["settings"]
    mesh = " x ".join(str(size) for size in report["mesh"].values())
    how = f"{settings.get('attention', '-')}, {settings['remat'] or 'keep all'}, {settings['accumulate']}"
    return {"run": name, "mesh": mesh, "attention, remat, micro-batches": how, "batch": report["batch"]} | _bounds(
        report
    )


def sampling_row(name: str, report: dict) -> dict[str, str]:
    """A row of the table of sampling."""
    return {"model, chip": name, "largest batch": report["batch"]} | _bounds(report)


def both_kinds(reports: dict[str, dict]) -> list[dict[str, str]]:
    """Rows of the table of slices: the needs of splash and plain attention side by side."""
    rows: dict[str, dict[str, str]] = {}
    for name, report in reports.items():
        slice_name, _, kind = name.rpartition(", ")
        row = rows.setdefault(slice_name, {"model, slice": slice_name, "batch": report["batch"]})
        size = f"{report['peak_bytes_per_chip'] / 2**30:.1f}"
        if report["fits"]:
            network = sum(one["bytes"] for one in report["collectives"].values()) / 1e9
            row[f"{kind}: GiB, moved GB, network GB"] = (
                f"{size}, {report['moved_bytes_per_chip'] / 1e9:.0f}, {network:.1f}"
            )
            row[f"{kind}: bound on MFU"] = f"{report['mfu_bound']:.0%} ({report['limit']})"
        else:
            row[f"{kind}: GiB, moved GB, network GB"] = f"{size} of {report['chip_memory_bytes'] / 2**30:.1f}"
            row[f"{kind}: bound on MFU"] = "does not fit"
    return list(rows.values())


def _bounds(report: dict) -> dict[str, str]:
    row = {"GiB per chip": f"{report['peak_bytes_per_chip'] / 2**30:.1f} of {report['chip_memory_bytes'] / 2**30:.1f}"}
    if not report["fits"]:
        return row | {"bound on MFU": "does not fit"}
    times = (report[f"{name}_seconds"] for name in ("compute", "memory", "interconnect"))
    return row | {
        "moved GB": f"{report['moved_bytes_per_chip'] / 1e9:.0f}",
        "collectives GB": f"{sum(one['bytes'] for one in report['collectives'].values()) / 1e9:.1f}",
        "seconds: compute / memory / network": " / ".join(f"{seconds:.3f}" for seconds in times),
        "bound on MFU": f"{report['mfu_bound']:.0%} ({report['limit']})",
        "pictures/s": f"{report['pictures_per_second_bound']:.0f}",
        "days": f"{report['days_bound']:.1f}" if report["days_bound"] else "",
    }


def table(rows: list[dict[str, str]]) -> list[str]:
    """The lines of a table in Markdown."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    return lines + ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows]


if __name__ == "__main__":
    exit_with(main)
