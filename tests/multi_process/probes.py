"""What the processes of these tests run: commands of var-jax, some in a row, some with a misfortune built in."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from var_jax.cli import main as command_line
from var_jax.cli import options as command_options
from var_jax.errors import InputError
from var_jax.evaluation.extract import Extractor
from var_jax.parallel import processes, watch
from var_jax.pretrained.inception import Features
from var_jax.training import loop


def in_a_row(argv: list[str]) -> int:
    """WHICH FILE: joins once, then does all commands of the file (JSON); notes the pictures of steps in FILE.order."""
    which, file = argv
    _note_order(Path(f"{file}.order"))
    with processes.together(which, saves=True):
        command_options.together = lambda *args, **options: contextlib.nullcontext()
        for command in json.loads(Path(file).read_text()):
            code = command_line.main(command)
            if code:
                return code
    return 0


def _note_order(file: Path) -> None:
    inner = loop.pipeline.train_batches

    def batches(*args: Any, start_step: int = 0, **kwargs: Any) -> Iterator[dict[str, Any]]:
        with contextlib.closing(inner(*args, start_step=start_step, **kwargs)) as examples:
            for step, batch in enumerate(examples, start=start_step):
                with open(f"{file}{jax.process_index()}", "a", encoding="utf-8") as noted:
                    noted.write(json.dumps([args[2], step, batch["indices"].tolist()]) + "\n")
                yield batch

    loop.pipeline.train_batches = batches


def dies_in(argv: list[str]) -> int:
    """PHASE COMMAND...: SIGKILL in the middle of the fifth step, the first save, or the first evaluation."""
    phase, command = argv[0], argv[1:]
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)
    if phase == "step":
        loop.Window.after = lambda self, step, result: step == 5 and die()
    elif phase == "save":
        save = loop.Checkpoints.save

        def begin(self: Any, *args: Any) -> None:
            save(self, *args)
            die()

        loop.Checkpoints.save = begin
    else:
        inner = loop.pipeline.epoch_batches

        def batches(*args: Any, **options: Any) -> Iterator[dict[str, Any]]:
            yield next(inner(*args, **options))
            die()

        loop.pipeline.epoch_batches = batches
    return command_line.main(command)


def is_stopped(argv: list[str]) -> int:
    """COMMAND...: gets SIGTERM in its first step, and is slow from then on."""
    inner = loop.pipeline.train_batches

    def batches(*args: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        with contextlib.closing(inner(*args, **kwargs)) as examples:
            for number, batch in enumerate(examples):
                if number == 0:
                    os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(1.0)
                yield batch

    loop.pipeline.train_batches = batches
    return command_line.main(argv)


def extracts(argv: list[str]) -> int:
    """FILE --processes WHICH: features of drawn pictures, by a stand-in for a network, into FILE0.npy, FILE1.npy ..."""
    file, _, which = argv
    images = np.random.default_rng(0).integers(0, 256, (22, 4, 4, 3), np.uint8)

    def apply(params: Any, pictures: jax.Array) -> Features:
        flat = pictures.reshape(len(pictures), -1).astype(np.float32)
        return Features(flat * params["scale"], flat[:, :5])

    with processes.together(which):
        extractor = Extractor({"scale": np.float32(3)}, "stand-in", batch=8, apply=apply)
        parts = [extractor(images[start : start + 8]) for start in range(0, len(images), 8)]
        pool = np.concatenate([np.asarray(part.pool) for part in parts])
        np.save(f"{file}{jax.process_index()}.npy", pool)
    return 0


def waits(argv: list[str]) -> int:
    """--processes WHICH: is in a step for ever; a silence of eight seconds is a death. SIGUSR1: fails."""
    watch.SILENT_SECONDS = 8.0

    def refuse(*_: Any) -> None:
        raise InputError("no such thing")

    with processes.together(argv[-1]):
        signal.signal(signal.SIGUSR1, refuse)
        processes.at("step", 7)
        print("in a step", flush=True)
        time.sleep(600)
    return 0


def has_another_jaxlib(argv: list[str]) -> int:
    """COMMAND...: as if another version of jaxlib were installed."""
    found = processes.versions()
    processes.versions = lambda: found | {"jaxlib": "0.0.1"}
    return command_line.main(argv)
