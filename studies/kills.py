"""Kills runs with SIGKILL at random moments, starts them again, and compares what they end with bit by bit.

    python -m studies.kills --kills 20            # each of the four kinds of run; minutes to an hour
    python -m studies.kills --kills 2 --only store

The kinds: `tokenizer` (stage 1), `pictures` and `store` (stage 2 from either), `tokenize`. Each is run once without a
break. Then new runs are killed, in turn at a moment drawn evenly from the time of the unbroken run, while a checkpoint
or a file is being written, during an evaluation, and between steps (tokenizing: the first two only). After
--kills-per-run kills a run goes on to its end. Its parameters and optimizer state (or the store's files) must equal the
unbroken run's. Exit code 1 if one does not.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from studies.command_line import exit_with, options, write_json

KINDS = ("tokenizer", "pictures", "store", "tokenize")
AIMS = (None, "writing", "evaluating", "stepping")  # None: any moment

# The smallest models that still have every part; drop path and flips, so that random draws count.
CONFIG = """
from ml_collections import ConfigDict
from var_jax.configs import _common

def get_config(argument=""):
    c = _common.tokenizer() if argument == "tokenizer" else _common.transformer("d2")
    c.data.kind, c.data.options, c.data.workers = "shapes", ConfigDict({"size": 12, "count": 60}), 0
    c.data.enlarge, c.data.flip = 1.25, True
    if argument == "tokenizer":
        c.model.pyramid, c.model.codebook_size, c.model.code_width = "1,2,4", 16, 4
        c.model.base_channels, c.model.channel_multipliers, c.model.norm_groups = 8, (1, 2), 4
        c.model.encoder_blocks = c.model.decoder_blocks = 1
        c.ema_decay = 0.9
    else:
        c.tokenizer, c.model.width, c.model.num_heads, c.model.drop_path = TOKENIZER, 16, 2, 0.2
        c.data.store = STORE if argument == "store" else None
    c.dtype, c.batch_size, c.steps = "float32", 8, 40
    c.report_every, c.evaluate_every, c.checkpoint_every = 5, 10, 3
    c.evaluate_pictures, c.evaluate_batch_size = 12, 8
    return c
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs every kind and prints its figures; 0 if every run ended as the unbroken one."""
    parser = options("kills", __doc__)
    parser.add_argument("--kills", type=int, default=20, help="of each kind of run (default 20)")
    parser.add_argument("--kills-per-run", type=int, default=4, help="before a run goes on to its end (default 4)")
    parser.add_argument("--only", choices=KINDS, action="append", help="this kind, may be repeated; default all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        tester = Tester(Path(folder), random.Random(args.seed))
        figures = {kind: tester.test(kind, args.kills, args.kills_per_run) for kind in args.only or KINDS}
    write_json(args.json, figures)
    return 0 if all(f["runs"] == f["identical"] for f in figures.values()) else 1


class Tester:
    """Runs of every kind in one folder."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        """Nothing is run yet."""
        self.folder, self.rng, self._seconds = folder, rng, {}
        (folder / "log").mkdir()
        # One cache of compiled programs for all starts.
        cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "xla"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        settings = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0", **cache}
        self.environment = {**settings, **os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        places = f"TOKENIZER, STORE = {str(folder / 'tokenizer')!r}, {str(folder / 'tokenize')!r}\n"
        (folder / "config.py").write_text(places + CONFIG)

    def command(self, kind: str, out: Path) -> list[str]:
        """The command as a user would type it."""
        program = [sys.executable, "-m", "var_jax.cli.main"]
        if kind != "tokenize":
            return [*program, "train", "--config", f"{self.folder / 'config.py'}:{kind}", "--workdir", str(out)]
        data = ["--kind", "shapes", "--size", "12", "--count", "60", "--enlarge", "1.25", "--flips", "--crops", "3"]
        model = ["--model", str(self.folder / "tokenizer"), "--pictures-per-file", "4", "--batch", "2"]
        return [*program, "tokenize", *model, *data, "--out", str(out)]

    def start(self, kind: str, out: Path) -> subprocess.Popen[bytes]:
        """Starts a process whose output goes to a log file of the run."""
        with open(self.folder / "log" / out.name, "ab") as log:
            return subprocess.Popen(self.command(kind, out), stdout=log, stderr=log, env=self.environment)

    def finish(self, kind: str, out: Path) -> float:
        """Starts a process and waits for its end; the seconds it took."""
        since = time.monotonic()
        if code := self.start(kind, out).wait():
            raise SystemExit(f"{kind}: exit code {code}\n{(self.folder / 'log' / out.name).read_text()[-3000:]}")
        return time.monotonic() - since

    def unbroken(self, kind: str) -> None:
        """Makes the run to compare with, and the runs that it needs, where they are missing."""
        for needed in {"tokenizer": (), "pictures": ("tokenizer",), "tokenize": ("tokenizer",)}.get(
            kind, ("tokenizer", "tokenize")
        ):
            if not (self.folder / needed).exists():
                self.finish(needed, self.folder / needed)
        if not (self.folder / kind).exists():
            self.finish(kind, self.folder / kind)

    def seconds(self, kind: str) -> float:
        """The time of an unbroken run that finds everything compiled, as the killed ones will."""
        if kind not in self._seconds:
            self._seconds[kind] = self.finish(kind, self.folder / f"{kind}_again")
        return self._seconds[kind]

    def test(self, kind: str, kills: int, kills_per_run: int) -> dict[str, object]:
        """Kills, restarts and compares until there were `kills` kills."""
        self.unbroken(kind)
        tried, done, runs, identical, caught = 0, 0, 0, 0, Counter()
        while done < kills:
            out = self.folder / f"{kind}_{runs}"
            for _ in range(min(kills_per_run, kills - done)):
                aims = AIMS[:2] if kind == "tokenize" else AIMS
                tried += 1
                found = self.kill(kind, out, aims[tried % len(aims)])
                if found is None:  # the process ended before its moment came
                    break
                caught[found] += 1
                done += 1
            self.finish(kind, out)
            runs += 1
            identical += self.same(kind, out)
            print(f"{kind}: {done} kills, {identical} of {runs} runs identical, killed in {dict(caught)}", flush=True)
        return {"kills": done, "runs": runs, "identical": identical, "killed_in": dict(caught)}

    def kill(self, kind: str, out: Path, aim: str | None) -> str | None:
        """One start and one SIGKILL; the phase it fell into, or None if the process ended first."""
        log = self.folder / "log" / out.name
        before, left = log.stat().st_size if log.exists() else 0, half_written(out)
        wait = 0.0 if aim else self.rng.uniform(0, self.seconds(kind))
        process, moment = self.start(kind, out), time.monotonic() + wait

        def where() -> str:
            said = log.read_bytes()[before:].decode(errors="replace")
            return "writing" if half_written(out) - left else phase(said)

        # Not always the first of its kind; but only the first evaluation of a process lasts, it compiles.
        skipped = 0 if aim == "evaluating" else self.rng.randrange(3)
        while process.poll() is None and (aim or time.monotonic() < moment):
            if aim and where() == aim:
                skipped -= 1
                if skipped < 0:
                    time.sleep(self.rng.uniform(0, 0.02))
                    break
                while process.poll() is None and where() == aim:
                    time.sleep(0.002)
            time.sleep(0.002)
        if process.poll() is not None:
            return None
        process.kill()
        process.wait()
        return where()

    def same(self, kind: str, out: Path) -> bool:
        """Whether a run ended with the arrays, or files, of the unbroken one."""
        expected = self.folder / kind
        if kind == "tokenize":
            return content(out) == content(expected)
        ours, theirs = (checkpoint(folder) for folder in (out, expected))
        return ours.keys() == theirs.keys() and all(np.array_equal(ours[k], theirs[k], equal_nan=True) for k in ours)


def half_written(out: Path) -> set[tuple[str, int]]:
    """Names and times of half-written files and checkpoints."""
    found = set()
    for item in [*out.glob("*.partial"), *out.glob("checkpoints/*tmp*")]:
        with contextlib.suppress(FileNotFoundError):  # it was finished meanwhile
            found.add((item.name, item.stat().st_mtime_ns))
    return found


def phase(said: str) -> str:
    """The phase of a process, from its output so far."""
    lines = said.splitlines()
    if not lines or not lines[-1].startswith("step"):
        return "working" if any(line.endswith("pictures") for line in lines) else "starting and compiling"
    number = int(lines[-1].split()[1].split("/")[0].rstrip(","))
    return "evaluating" if number % 10 == 0 and "validation" not in lines[-1] else "stepping"


def content(folder: Path) -> dict[str, bytes]:
    """Names and bytes of a store's files."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def checkpoint(folder: Path) -> dict[str, np.ndarray]:
    """Every array of a run's newest checkpoint: parameters, their average, optimizer state, counts, steps."""
    newest = max(
        (item for item in (folder / "checkpoints").iterdir() if item.name.isdigit()), key=lambda i: int(i.name)
    )
    arrays = {"step": np.asarray(int(newest.name))}
    for item in ("weights", "rest"):
        with ocp.PyTreeCheckpointer() as reader:
            leaves = ocp.utils.to_flat_dict(reader.restore(newest / item), sep="/", keep_empty_nodes=False)
        arrays |= {f"{item}/{name}": np.asarray(leaf) for name, leaf in leaves.items()}
    return arrays


if __name__ == "__main__":
    exit_with(main)
