"""How a run ends at a signal: in the loop it saves first, before the loop there is nothing to save."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from var_jax.parallel.processes import STOPPED

GOES_ON = "the same command goes on from here"
_INTERRUPTED = 130
_PATIENCE = 3.0  # seconds for Python to get a turn, which it does not while XLA compiles


class Stopped(BaseException):
    """Raised in the main thread by a signal that comes before the loop."""


class Stop:
    """Hears SIGTERM, SIGINT and SIGHUP.

    Attributes:
      heard: whether one of them came.
      where: the place of the run, for people.
      saves: whether the run has learned since its last checkpoint, so that it looks at `heard` and saves. Until then a
        signal ends it by `Stopped`.
    """

    def __init__(self) -> None:
        self.heard, self.saves, self.where = False, False, "before its first step"
        self._hearing = False

    @contextlib.contextmanager
    def hearing(self, several: bool, ends_process: bool = False) -> Iterator[None]:
        """Hears signals during the body, if this is the main thread and does not hear them already.

        Args:
          several: one of several processes, in which JAX hears SIGTERM; the others become SIGTERM.
          ends_process: where Python gets no turn, and at a second SIGINT, the process ends without it.
        """
        if self._hearing or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._hearing = True
        numbers = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
        handler = _pass_on if several else self._hear
        before = {number: signal.signal(number, handler) for number in numbers + [signal.SIGTERM] * (not several)}
        with contextlib.ExitStack() as watching:
            if ends_process and not several:
                watching.enter_context(_watched(self._heard_in_thread))
            try:
                yield
            finally:
                self._hearing = False
                for number, old in before.items():
                    signal.signal(number, old)

    def line(self) -> str:
        """The last line of a run that was stopped."""
        return f"stopped {self.where}: {GOES_ON}"

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again, self.heard = self.heard, True
        if number == signal.SIGHUP:
            _leave_terminal()
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.saves:
            raise Stopped

    def _heard_in_thread(self, number: int, nth: int, ended: threading.Event) -> None:
        if number == signal.SIGINT and nth > 1:
            os.write(2, b"var-jax train: interrupted twice: ended at once, the last checkpoint stays\n")
            os._exit(_INTERRUPTED)
        if not self.saves and not ended.wait(_PATIENCE):
            os.write(1, f"{self.line()}\n".encode())
            os._exit(STOPPED)


def _leave_terminal() -> None:
    """Sends output that went to a terminal nowhere: the terminal is gone, and writing to it is an error."""
    for descriptor in (1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


def _pass_on(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _watched(hear: Callable[[int, int, threading.Event], None]) -> Iterator[None]:
    """A thread gets every signal at once: its number, which one of its kind it is, and whether the body has ended."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    ended = threading.Event()

    def watch() -> None:
        counts: dict[int, int] = {}
        while number := os.read(reading, 1):
            counts[number[0]] = counts.get(number[0], 0) + 1
            threading.Thread(target=hear, args=(number[0], counts[number[0]], ended), daemon=True).start()
        os.close(reading)

    threading.Thread(target=watch, name="signals", daemon=True).start()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        ended.set()
        os.close(writing)
