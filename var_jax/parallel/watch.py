"""The watch between processes: who is late, who has died, and the one sentence that all end with.

Why it is ours: docs/reliability.md promises that a dead process is named, within a minute, in one clear line, with an
exit code. JAX 0.10 to 0.12 keeps the minute (its heartbeats) and nothing else: a thread of its own aborts the survivors
with SIGABRT and a page of text, from which Python code cannot escape, which names nobody if process 0 has died, and
which blames the wrong one if a process fails by an error. With `jax_enable_recoverability` survivors live on, but then
runs that have finished may abort too. JAX's heartbeats stay behind the watch, for processes whose Python stands still.

Each process keeps its connection to process 0 from the rendezvous and sends its phase and step every few seconds. The
end of a connection is the end of a process, known at once; one that hangs is silent, and known after `SILENT_SECONDS`.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

SILENT_SECONDS = 25.0  # without a sign of life: dead
# After which JAX takes a process for dead. It counts from the last sign of life, of which there is one every half of
# this, so it may find out after half of this already: that must be well after the watch has.
HEARTBEAT_SECONDS = 80
LATE_SECONDS = 60.0  # in which nobody gets anywhere: worth a line, and again after twice as long
LOST, FAILED = 1, 2  # exit codes
_BEAT_SECONDS = 2.0
_DONE = "done"
# Phases in which Python may stand still for long while JAX starts devices or compiles.
_QUIET = ("init", "compile")
# Phases in which a process may be waiting for others; in all other phases it works.
_TOGETHER = ("step", "evaluation", "checkpoint")


class Beat(NamedTuple):
    """Where a process is: in a phase, such as "data", of a step of the training."""

    phase: str
    step: int


class Watch:
    """The thread that sends this process's beats and hears those of others; it ends with the process.

    Args:
      peers: connections by index: of process 0 to all others, of any other to process 0.
      index: this process.
      hosts: names by index.
      say: prints the line about late processes; called by process 0 only.
    """

    def __init__(
        self, peers: Mapping[int, Connection], index: int, hosts: Sequence[str], say: Callable[[str], None] = print
    ) -> None:
        self.index, self.hosts = index, hosts
        self._peers, self._say = peers, say
        self._at = Beat("init", 0)
        self._last = dict.fromkeys(peers, self._at)
        self._heard = dict.fromkeys(peers, time.monotonic())
        self._seen, self._moved, self._patience = {}, time.monotonic(), LATE_SECONDS
        self._ended = threading.Event()
        self._last_word = threading.Lock()  # taken once and never released: a process ends with one sentence
        self._sending = threading.RLock()  # or an older beat could be sent last
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def at(self, phase: str, step: int) -> None:
        """Where this process is from now on."""
        before, self._at = self._at, Beat(phase, step)
        if before.phase in _QUIET and phase not in _QUIET:
            self._beat()

    def done(self) -> None:
        """This process has done its part and only waits for the others."""
        self._at = Beat(_DONE, self._at.step)
        self._beat()

    def mute(self) -> None:
        """This process ends by itself and says why itself; if the thread is ending it already, that goes first."""
        self._last_word.acquire()
        self._ended.set()

    def fail(self, text: str, code: int) -> None:
        """Ends all other processes with this sentence; the caller ends this one."""
        self._send("end", text, code)
        if self.index == 0:
            time.sleep(1.0)  # JAX aborts the others as soon as this process is gone: their own sentence goes first

    def _beat(self) -> None:
        with self._sending:
            self._send("at", *self._at)

    def _send(self, *message: str | int) -> None:
        with self._sending:
            for peer in self._peers.values():
                with contextlib.suppress(OSError):  # gone, as reading will show
                    peer.send_bytes(json.dumps(message).encode())

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for index, peer in self._peers.items():
                selector.register(peer, selectors.EVENT_READ, index)
            while not self._ended.is_set():
                self._beat()
                due = time.monotonic() + _BEAT_SECONDS
                while not self._ended.is_set() and (left := due - time.monotonic()) > 0:
                    for key, _ in selector.select(left):
                        if not self._hear(key.data):
                            selector.unregister(key.fileobj)
                self._look()

    def _hear(self, index: int) -> bool:
        """Reads a message of a process; False at the end of its connection."""
        try:
            kind, *content = json.loads(self._peers[index].recv_bytes())
        except (OSError, EOFError):
            if not self._at.phase == self._last[index].phase == _DONE:
                self._end_all(f"{self._name(index)} has died, last in {_where(self._last[index])}", LOST)
            return False
        if kind == "end":
            self._end_all(*content)
        else:
            self._last[index], self._heard[index] = Beat(*content), time.monotonic()
        return True

    def _look(self) -> None:
        """Finds processes that have been silent for too long, and says who is late."""
        now = time.monotonic()
        for index, beat in self._last.items():
            silent = now - self._heard[index]
            if beat.phase not in (*_QUIET, _DONE) and silent > SILENT_SECONDS:
                name = self._name(index)
                self._end_all(f"{name} has died: not heard of for {silent:.0f} s, last in {_where(beat)}", LOST)
        beats = {self.index: self._at, **self._last}
        if beats != self._seen:
            self._seen, self._moved, self._patience = beats, now, LATE_SECONDS
        elif self.index == 0 and now - self._moved > self._patience:
            self._patience *= 2
            self._say(standstill(beats, self.hosts, now - self._moved))

    def _name(self, index: int) -> str:
        return f"process {index} ({self.hosts[index]})"

    def _end_all(self, text: str, code: int) -> None:
        if self._ended.is_set():
            return
        if self.index == 0:
            self.fail(text, code)
        self._end(text, code)

    def _end(self, text: str, code: int) -> None:
        self._last_word.acquire()
        # Not through Python's files: another thread may hold them, and there is no time.
        os.write(2, f"var-jax: {text}; this was process {self.index} of {len(self.hosts)}\n".encode())
        os._exit(code)


def standstill(beats: Mapping[int, Beat], hosts: Sequence[str], seconds: float) -> str:
    """The line about processes of which none has got anywhere for so many seconds: it names the late ones."""
    late = late_ones(beats)
    if not late:
        beat = max(beats.values(), key=lambda beat: beat.step)
        return f"all {len(beats)} processes: {_where(beat)} for {seconds:.0f} s"
    named = ", ".join(f"process {index} ({hosts[index]}) in {_where(beats[index])}" for index in late[:4])
    more = f" and {len(late) - 4} more" if len(late) > 4 else ""
    others = max((beat for index, beat in beats.items() if index not in late), key=lambda beat: beat.step)
    return f"waiting for {seconds:.0f} s for {named}{more}; the others: {_where(others)}"


def late_ones(beats: Mapping[int, Beat]) -> list[int]:
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
