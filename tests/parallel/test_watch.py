"""Who is late among processes, and who has died."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time

import pytest

from var_jax.parallel import watch
from var_jax.parallel.watch import Beat, Watch, late_ones, standstill

HOSTS = ("a", "b", "c")


def beats(*at):
    return {index: Beat(phase, step) for index, (phase, step) in enumerate(at)}


@pytest.mark.parametrize(
    ("at", "late"),
    [
        ([("step", 7), ("data", 7), ("step", 7)], [1]),
        ([("step", 8), ("step", 7), ("step", 8)], [1]),
        ([("compile", 1), ("step", 1), ("compile", 1)], [0, 2]),
        ([("step", 7), ("step", 7), ("step", 7)], []),
        ([("init", 0), ("init", 0), ("init", 0)], []),
        ([("checkpoint", 8), ("evaluation", 8), ("data", 9)], [0, 1]),
        ([("done", 0), ("data", 4), ("step", 4)], [1]),
        ([("done", 0), ("done", 0), ("done", 0)], []),
    ],
)
def test_late_ones(at, late):
    assert late_ones(beats(*at)) == late


def test_the_line_of_a_standstill():
    found = standstill(beats(("step", 7), ("data", 7), ("step", 7)), HOSTS, 61.0)
    assert found == "waiting for 61 s for process 1 (b) in data of step 7; the others: step of step 7"
    assert standstill(beats(*[("init", 0)] * 3), HOSTS, 120.0) == "all 3 processes: init for 120 s"


class Process:
    """One whose connection the test holds: it sends and closes by hand."""

    def __init__(self, connection):
        self.connection = connection

    def at(self, phase, step):
        self.connection.send_bytes(json.dumps(["at", phase, step]).encode())

    def received(self):
        """The messages so far."""
        found = []
        while self.connection.poll(0.2):
            found.append(json.loads(self.connection.recv_bytes()))
        return found


WATCHING: list[Watch] = []


def star(count, by_hand=(), say=print):
    """Processes that are connected to process 0: a Watch of each, or a `Process` for those `by_hand`."""
    pipes = [multiprocessing.Pipe() for _ in range(count - 1)]
    peers = [{index: pipe[0] for index, pipe in enumerate(pipes, start=1)}, *({0: pipe[1]} for pipe in pipes)]
    assert by_hand != (0,) or count == 2
    made = [
        Process(next(iter(peers[index].values()))) if index in by_hand else Watch(peers[index], index, HOSTS, say)
        for index in range(count)
    ]
    WATCHING.extend(each for each in made if isinstance(each, Watch))
    return made


@pytest.fixture
def ends(monkeypatch):
    """What watches would have ended their processes with."""
    monkeypatch.setattr(watch, "_BEAT_SECONDS", 0.05)
    monkeypatch.setattr(watch, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(watch, "LATE_SECONDS", 0.3)
    found = []

    def end(self, text, code):
        found.append((self.index, text, code))
        self._ended.set()

    monkeypatch.setattr(Watch, "_end", end)
    yield found
    while WATCHING:  # or the end of their connections would end the tests
        WATCHING.pop()._ended.set()


def waited(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_standstill_is_said_by_the_first(ends):
    said = []
    watches = star(3, say=lambda text: said.append((threading.current_thread(), text)))
    for one in watches:
        one.at("step", 5)
    waited(lambda: len(said) > 1)  # nobody gets anywhere: once, and again after twice as long
    assert all(text.startswith("all 3 processes: step of step 5 for") for _, text in said)
    assert len({thread for thread, _ in said}) == 1
    watches[2].at("data", 6)
    watches[0].at("step", 6)
    watches[1].at("step", 6)
    waited(lambda: "for process 2 (c) in data of step 6; the others: step of step 6" in said[-1][1])
    assert not ends


def test_one_that_is_silent_ends_all(ends):
    *watches, silent = star(3, by_hand=(2,))
    for one in (*watches, silent):
        one.at("step", 5)
    waited(lambda: len(ends) == 2)
    assert {index for index, _, _ in ends} == {0, 1}
    for _, text, code in ends:
        assert text.startswith("process 2 (c) has died: not heard of for ")
        assert text.endswith(", last in step of step 5")
        assert code == watch.LOST


@pytest.mark.parametrize("phase", ["step", "compile", "init"])
def test_the_end_of_a_connection_ends_all_at_once(ends, monkeypatch, phase):
    monkeypatch.setattr(watch, "SILENT_SECONDS", 1000.0)
    *watches, killed = star(3, by_hand=(2,))
    for one in (*watches, killed):
        one.at(phase, 5)
    waited(lambda: watches[0]._last[2].step == 5)
    killed.connection.close()
    waited(lambda: len(ends) == 2)
    assert sorted(ends) == [(index, f"process 2 (c) has died, last in {phase} of step 5", 1) for index in (0, 1)]


@pytest.mark.parametrize("closes", [True, False])
def test_without_the_first(ends, closes):
    first, one = star(2, by_hand=(0,))
    one.at("step", 5)
    first.at("data", 5)
    if closes:
        first.connection.close()
    waited(lambda: ends)
    (found,) = ends
    assert found[0] == 1
    assert found[1].startswith("process 0 (a) has died" + ("" if closes else ": not heard of for "))
    assert found[2] == watch.LOST


def test_one_that_compiles_may_be_silent(ends):
    first, silent = star(2, by_hand=(1,))
    first.at("compile", 1)
    silent.at("compile", 1)
    time.sleep(1.5)
    assert not ends
    silent.at("step", 1)
    waited(lambda: ends)
    assert ends[0][1].startswith("process 1 (b) has died: not heard of for ")


def test_one_that_fails_ends_the_others(ends):
    watches = star(3)
    watches[1].mute()
    watches[1].fail("process 1 ended: of itself", 7)
    waited(lambda: len(ends) == 2)
    assert sorted(ends) == [(index, "process 1 ended: of itself", 7) for index in (0, 2)]


def test_the_first_fails_and_ends_the_others(ends):
    watches = star(3)
    watches[0].mute()
    watches[0].fail("process 0 ended: of itself", 7)
    waited(lambda: len(ends) == 2)
    assert sorted(ends) == [(index, "process 0 ended: of itself", 7) for index in (1, 2)]


def test_one_that_is_done_is_not_missed(ends):
    first, one, done = star(3, by_hand=(2,))
    first.at("step", 5)
    one.at("step", 5)
    done.at("done", 5)
    time.sleep(1.5)  # silent, and waiting for the others
    first.done()
    one.done()
    waited(lambda: first._last[1].phase == "done")
    done.connection.close()  # all are done: it has ended
    time.sleep(0.3)
    assert not ends


def test_one_that_dies_while_it_waits_for_the_others_to_be_done(ends):
    first, one, done = star(3, by_hand=(2,))
    first.at("step", 5)
    done.at("done", 5)
    waited(lambda: first._last[2].phase == "done")
    done.connection.close()
    waited(lambda: len(ends) == 2)
    assert all(text == "process 2 (c) has died, last in done of step 5" for _, text, _ in ends)


def test_the_newest_beat_is_the_last_to_be_sent(ends, monkeypatch):
    """A slow message about the compiling leaves before the one that it is over: else a silence would go unnoticed."""
    monkeypatch.setattr(watch, "_BEAT_SECONDS", 60.0)  # one beat of the thread, and those of `at`
    first, one = star(2, by_hand=(0,))
    slow, held = threading.Event(), threading.Event()
    send = one._send

    def slowly(*message):
        if "compile" in message and not held.is_set():
            held.set()
            slow.wait(5)
        send(*message)

    monkeypatch.setattr(one, "_send", slowly)
    one.at("compile", 1)
    beating = threading.Thread(target=one._beat)
    beating.start()
    assert held.wait(5)
    moving = threading.Thread(target=one.at, args=("data", 2))
    moving.start()
    time.sleep(0.1)
    slow.set()
    beating.join()
    moving.join()
    phases = [phase for _, phase, _ in first.received() if phase != "init"]
    assert phases[0] == "compile"
    assert phases[-1] == "data"
    assert phases == sorted(phases)  # none of the first after one of the second
