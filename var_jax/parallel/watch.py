"""What processes that work together know of each other: who is where, who is late, who has died.

Each tells the coordinator every few seconds the phase and step it is in; the first process looks at all of them. One
that is not heard of any more has died: its death is made known, and everyone ends with one sentence that names it. So
does a process that fails by itself. JAX would end them too, later, with a page of its own (`HEARTBEAT_SECONDS`).
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

SILENT_SECONDS = 25.0  # without a word: dead
# After which JAX takes a process for dead. It counts from the last sign of life, of which there is one every half of
# this, so it may find out after half of this already: that must be well after the watch has.
HEARTBEAT_SECONDS = 80
LATE_SECONDS = 60.0  # in which nobody gets anywhere: worth a line, and again after twice as long
LOST, FAILED = 1, 2  # exit codes
_BEAT_SECONDS = 2.0
_BEATS, _VERDICT = "var_jax/beats/", "var_jax/verdict/it"
_DONE = "done"
# Phases in which Python may stand still for long while JAX starts devices or compiles: JAX itself looks after these.
_QUIET = ("init", "compile")
# Phases in which a process may be waiting for others; in all other phases it works.
_TOGETHER = ("step", "evaluation", "checkpoint")


class Beat(NamedTuple):
    """What a process said last.

    Attributes:
      number: of the beat, rising.
      phase: such as "data".
      step: of the training.
      seconds: in this phase so far.
    """

    number: int
    phase: str
    step: int
    seconds: float


class Watch:
    """The thread that tells and listens; started by making one, ended by `stop`.

    Args:
      client: the coordinator's key-value store, as JAX has it.
      index: this process.
      hosts: names by index.
      say: told who is late; only the first process says it.
    """

    def __init__(self, client: Any, index: int, hosts: Sequence[str], say: Callable[[str], None] = print) -> None:
        self._client, self._index, self._hosts, self._say = client, index, hosts, say
        self._at, self._number = ("init", 0, time.monotonic()), 0
        self._heard = {index: time.monotonic() for index in range(len(hosts))}
        self._last: dict[int, Beat] = {}
        self._moved, self._patience = time.monotonic(), LATE_SECONDS
        self._ended = threading.Event()
        self._last_word = threading.Lock()  # taken once and kept: a process ends with one sentence
        self._telling = threading.Lock()  # or an older beat could be told last
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def at(self, phase: str, step: int) -> None:
        """Where this process is from now on."""
        before, self._at = self._at, (phase, step, time.monotonic())
        if before[0] in _QUIET and phase not in _QUIET:
            with contextlib.suppress(RuntimeError):  # the thread will find out
                self._beat()
        elif before[:2] == (phase, step):
            self._at = before

    def stop(self) -> None:
        """This process has done its part and is not looked for any more."""
        if not self._ended.is_set():
            self._ended.set()
            self._thread.join()
            with contextlib.suppress(RuntimeError):
                self._tell(Beat(self._number, _DONE, self._at[1], 0.0))

    def mute(self) -> None:
        """This process ends by itself, and says why itself; if the thread is ending it already, that goes first."""
        self._last_word.acquire()
        self._ended.set()

    def fail(self, text: str, code: int) -> None:
        """Ends all processes with this sentence; returns at once, with only this one left to end."""
        try:
            self._client.key_value_set(_VERDICT, json.dumps([self._index, text, code]))
        except RuntimeError:
            return  # another has failed before, or the coordinator is gone: the others end anyway
        if self._index == 0:
            time.sleep(1.0)  # with this process ends what the others read it from

    def _beat(self) -> None:
        with self._telling:
            phase, step, since = self._at
            self._number += 1
            self._tell(Beat(self._number, phase, step, time.monotonic() - since))

    def _tell(self, beat: Beat) -> None:
        self._client.key_value_set(f"{_BEATS}{self._index}", json.dumps(beat), allow_overwrite=True)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._beat()
                if self._index == 0:
                    self._look()
                verdict = self._wait()
            except RuntimeError as error:
                if self._ended.is_set():
                    return
                reason = " ".join(str(error).split())[:120]
                self._end(f"{self._name(0)} has died, or cannot be reached any more ({reason})", LOST)
                return
            if verdict is not None and verdict[0] != self._index and not self._ended.is_set():
                self._end(verdict[1], verdict[2])

    def _wait(self) -> list[Any] | None:
        """The sentence that all end with, if it comes before the next beat; notices at once that process 0 is gone."""
        try:
            return json.loads(self._client.blocking_key_value_get(_VERDICT, int(_BEAT_SECONDS * 1000)))
        except RuntimeError as error:
            if "DEADLINE_EXCEEDED" in str(error):
                return None
            raise

    def _look(self) -> None:
        """The first process: notes who has been heard of, and who has not for too long."""
        now = time.monotonic()
        for key, value in self._client.key_value_dir_get(_BEATS):
            index, beat = int(key.rpartition("/")[2]), Beat(*json.loads(value))
            before = self._last.get(index)
            if before is None or beat.number != before.number or beat.phase == _DONE:
                self._heard[index] = now
            if before is None or (before.phase, before.step) != (beat.phase, beat.step):
                self._moved, self._patience = now, LATE_SECONDS
            self._last[index] = beat
        for index, heard in self._heard.items():
            beat = self._last.get(index)
            if beat is not None and beat.phase not in _QUIET and now - heard > SILENT_SECONDS:
                text = f"{self._name(index)} has died: not heard of for {now - heard:.0f} s, last in {_where(beat)}"
                self.fail(text, LOST)
                self._end(text, LOST)
        if now - self._moved > self._patience:
            self._patience *= 2
            self._say(standstill(self._last, self._hosts, now - self._moved))

    def _name(self, index: int) -> str:
        return f"process {index} ({self._hosts[index]})"

    def _end(self, text: str, code: int) -> None:
        self._last_word.acquire()
        # Not through Python's files: another thread may hold them, and there is no time.
        os.write(2, f"var-jax: {text}; this was process {self._index} of {len(self._hosts)}\n".encode())
        os._exit(code)


def standstill(beats: dict[int, Beat], hosts: Sequence[str], seconds: float) -> str:
    """The line about processes of which none has got anywhere for so many seconds: it names the late ones."""
    late = late_ones(beats)
    if not late:
        beat = max(beats.values(), key=lambda beat: beat.step)
        return f"all {len(beats)} processes: {_where(beat)} for {seconds:.0f} s"
    named = ", ".join(f"process {index} ({hosts[index]}) in {_where(beats[index])}" for index in late[:4])
    more = f" and {len(late) - 4} more" if len(late) > 4 else ""
    others = max((beat for index, beat in beats.items() if index not in late), key=lambda beat: beat.step)
    return f"waiting for {seconds:.0f} s for {named}{more}; the others: {_where(others)}"


def late_ones(beats: dict[int, Beat]) -> list[int]:
    """Those that the others wait for: behind in steps, or at work by themselves while others wait."""
    running = {index: beat for index, beat in beats.items() if beat.phase != _DONE}
    if not running:
        return []
    least = min(beat.step for beat in running.values())
    late = [index for index, beat in running.items() if beat.step == least]
    if len(late) == len(running):
        late = [index for index, beat in running.items() if beat.phase not in _TOGETHER]
    return sorted(late) if len(late) < len(running) else []


def _where(beat: Beat) -> str:
    return f"{beat.phase} of step {beat.step}" if beat.step else beat.phase
