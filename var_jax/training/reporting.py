"""Reports of a running training: lines on the terminal and in a log, JSON lines, TensorBoard, pictures."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from var_jax.errors import printable
from var_jax.formats.bucket import in_bucket

LOG_FILE, METRICS_FILE, PICTURES, TENSORBOARD = "log.txt", "metrics.jsonl", "pictures", "tensorboard"


class Reporter:
    """Writes into a training directory; only one process of a run has an active reporter.

    Files are appended to, so a resumed run continues them. A file in a bucket cannot be appended to: each
    write is the whole file again, and therefore lines are short and few.
    """

    def __init__(self, workdir: epath.Path, active: bool = True) -> None:
        """Opens (or continues) the files in `workdir`; a reporter that is not `active` writes nothing."""
        self._workdir, self._active = workdir, active
        self._terminal = active and sys.stdout.isatty()
        self._line_open = False
        self._curves: tempfile.TemporaryDirectory[str] | None = None
        if active and not in_bucket(workdir):
            _drop_half_line(workdir / METRICS_FILE)
        self._board = self._open_board() if active else None

    def say(self, text: str) -> None:
        """Writes a line for people, to terminal and log."""
        if not self._active:
            return
        self._close_line()
        lines, stamp = [printable(line) for line in text.split("\n")], time.strftime("%Y-%m-%d %H:%M:%S")
        print("\n".join(lines), flush=True)
        _append(self._workdir / LOG_FILE, "".join(f"{stamp} {line}\n" for line in lines))

    def note(self, name: str, line: str) -> None:
        """Writes a line for people, and adds it, once, to a file of its own."""
        path, line = self._workdir / name, printable(line)
        if not self._active:
            print(f"left out: {line}", flush=True)
        elif line not in (path.read_text(encoding="utf-8").splitlines() if path.exists() else ()):
            self.say(f"left out: {line} (see {name})")
            _append(path, f"{line}\n")

    def progress(self, text: str) -> None:
        """Shows the run's progress: on a terminal as one line that is overwritten, else as a plain line."""
        if self._terminal:
            print(f"\r\033[K{text}", end="", flush=True)
            self._line_open = True
        elif self._active:
            print(text, flush=True)

    def metrics(self, step: int, kind: str, values: dict[str, Any], goodput: dict[str, float] | None = None) -> None:
        """Writes one JSON line {"step", "kind", ...} and the same numbers to TensorBoard; arrays become lists.

        `goodput`, seconds by phase, goes into the JSON line alone.
        """
        if not self._active:
            return
        plain = {name: _number(value) for name, value in values.items()}
        line = {"step": step, "kind": kind, **plain} | ({} if goodput is None else {"goodput": goodput})
        _append(self._workdir / METRICS_FILE, json.dumps(line) + "\n")
        if self._board:
            for name, value in plain.items():
                for index, item in np.ndenumerate(value):
                    self._board.add_scalar("/".join([kind, name, *map(str, index)]), item, step)
            self._flush_board()

    def lines(self) -> list[dict[str, Any]]:
        """The lines that all runs in this directory have written by `metrics`, without damaged ones."""
        file = self._workdir / METRICS_FILE
        text = file.read_bytes().decode(errors="replace") if file.exists() else ""
        return [line for line in map(_parsed, text.splitlines()) if line]

    def picture(self, step: int, name: str, image_HxWx3: np.ndarray) -> None:
        """Writes a picture to pictures/NAME_STEP.png."""
        if not self._active:
            return
        folder = self._workdir / PICTURES
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}_{step:07d}.png").open("wb") as file:
            Image.fromarray(image_HxWx3).save(file, format="PNG")
        if self._board:
            self._board.add_image(name, image_HxWx3, step, dataformats="HWC")

    def close(self) -> None:
        """Ends an open progress line and closes the TensorBoard file."""
        self._close_line()
        if self._board:
            self._flush_board()
            self._board.close()
        if self._curves:
            self._curves.cleanup()

    def _open_board(self) -> Any:
        """A TensorBoard writer, or None if tensorboardX is not installed (extra: tensorboard)."""
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            return None
        folder = self._workdir / TENSORBOARD
        if in_bucket(self._workdir):  # the writer's own client for buckets may die in a thread and hang the run
            self._curves = tempfile.TemporaryDirectory()
            folder = self._curves.name
        try:
            return SummaryWriter(str(folder))
        except OSError as error:  # no reason to stop
            self.say(f"no curves for TensorBoard ({type(error).__name__}: {error}); {METRICS_FILE} has the numbers")
            return None

    def _flush_board(self) -> None:
        self._board.flush()
        if self._curves:
            for file in epath.Path(self._curves.name).iterdir():
                file.copy(self._workdir / TENSORBOARD / file.name, overwrite=True)

    def _close_line(self) -> None:
        if self._line_open:
            print(flush=True)
            self._line_open = False


def _drop_half_line(path: epath.Path) -> None:
    """Removes an incomplete last line, left by a killed process."""
    if path.exists() and not (text := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, text.rfind(b"\n") + 1)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
        return line if isinstance(line, dict) and isinstance(line.get("step"), int) and "kind" in line else None
    except ValueError:
        return None


def _append(path: epath.Path, text: str) -> None:
    if in_bucket(path):
        path.write_text((path.read_text() if path.exists() else "") + text)
    else:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)


def _number(value: Any) -> Any:
    array = np.asarray(value)
    rounded = [float(f"{item:.6g}") for item in array.ravel().astype(np.float64)]
    return rounded if array.ndim else rounded[0]


class Clock:
    """Measures a run's recent pace and predicts the time left."""

    def __init__(self, done: int, total: int) -> None:
        """Starts at `done` of `total` steps."""
        self._total = total
        self.restart(done)

    def restart(self, done: int) -> None:
        """Begins a new interval, after an interruption that should not count."""
        self._since, self._from, self.waiting = time.monotonic(), done, 0.0

    def read(self, done: int, pictures_per_step: int) -> dict[str, float]:
        """Pictures per second, share of time waiting for data, seconds left; then begins a new interval.

        Rates are 0 if the system's clock stood still or went back.
        """
        spent, steps = max(time.monotonic() - self._since, 0.0), done - self._from
        values = {
            "pictures_per_second": steps * pictures_per_step / spent if spent else 0.0,
            "data_wait": min(max(self.waiting / spent, 0.0), 1.0) if spent else 0.0,
            "seconds_left": (self._total - done) * spent / max(steps, 1),
        }
        self.restart(done)
        return values


def duration(seconds: float) -> str:
    """Formats seconds as 1:02:03 or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
