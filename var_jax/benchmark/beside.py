"""Runs the reference in a process of its own, one call at a time, so that PyTorch stays out of this process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import jax

from var_jax.benchmark.machine import cores
from var_jax.benchmark.timing import Timing, take_turns
from var_jax.cpu.large_pages import as_it_began
from var_jax.errors import InputError
from var_jax.models.baselines import BaselineConfig
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.models.transformer_config import TransformerConfig

# Settings that are fixed in the reference, as in the published tokenizer: its classes have no argument for them.
_FIXED = ("channel_multipliers", "encoder_blocks", "decoder_blocks", "norm_groups", "lookup", "unit_codes")


class Reference:
    """A worker process with one kind of call prepared; use it in a `with`.

    Args:
      checkout: a user's checkout of FoundationVision/VAR.
      task: describes the call, see `reference_worker`.

    Raises:
      InputError: if the folder is no checkout, PyTorch is missing, or the reference cannot do the task.
    """

    def __init__(self, checkout: str | os.PathLike[str], task: dict[str, Any]) -> None:
        self._checkout, self._task = os.fspath(checkout), task | {"threads": cores()}
        self.versions: dict[str, str] = {}

    def __enter__(self) -> Reference:
        environment = as_it_began(dict(os.environ))
        if self._task["device"] == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""  # the reference takes a GPU wherever it finds one
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "var_jax.benchmark.reference_worker", self._checkout],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        try:
            self.versions = self._request("prepare", self._task)
        except BaseException:
            self.__exit__()
            raise
        return self

    def run(self) -> float:
        """Makes one call; returns its seconds."""
        return self._request("run")

    def peak_bytes(self) -> int:
        """Peak memory so far: the GPU's if the reference runs on one, else the process's."""
        return self._request("peak")

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # at the end of its input the worker ends
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _request(self, verb: str, argument: Any = None) -> Any:
        try:
            self._process.stdin.write(json.dumps([verb, argument]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._log.seek(0)
            output = " ".join(self._log.read().split())[-300:]
            raise InputError(f"{self._checkout}: the reference's process ended at '{verb}' ({output or 'no message'})")
        answer = json.loads(line)
        if "error" in answer:
            raise InputError(answer["error"])
        return answer["value"]


def in_turn(
    ours: Callable[[], float], against: str | os.PathLike[str] | None, task: dict[str, Any], repeats: int, **turns: Any
) -> tuple[Timing, tuple[Timing, int] | None, dict[str, str]]:
    """Times our call alone or, with a checkout, in turn with the reference's of this task; see `take_turns`.

    Returns:
      Our timing, the reference's timing with its peak memory (or None), and the versions in its process.
    """
    if not against:
        return take_turns({"ours": ours}, repeats)["ours"], None, {}
    with Reference(against, task) as reference:
        timings = take_turns({"ours": ours, "reference": reference.run}, repeats, **turns)
        return timings["ours"], (timings["reference"], reference.peak_bytes()), reference.versions


def shape(tokenizer: TokenizerConfig, transformer: TransformerConfig | None = None) -> dict[str, Any]:
    """Describes a model to the worker.

    Raises:
      InputError: for a model that the reference cannot build.
    """
    published, own = (vars(config) | vars(config.quantizer) for config in (TokenizerConfig(), tokenizer))
    for name in _FIXED:
        if own[name] != (value := published[name]):
            raise InputError(f"tokenizer {name} is {own[name]}: the reference knows {value} only, leave out --against")
    if isinstance(transformer, BaselineConfig):
        raise InputError("the transformer is a baseline that the reference does not have: leave out --against")
    if len(tokenizer.pyramid) < 2:
        raise InputError(f"pyramid {tokenizer.pyramid}: the reference needs at least two scales")
    described = {"tokenizer": tokenizer.to_dict(), "device": jax.default_backend()}
    return described | ({"transformer": transformer.to_dict()} if transformer else {})
