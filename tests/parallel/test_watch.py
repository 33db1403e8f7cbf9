"""Who is late among processes, and who is taken for dead."""

from __future__ import annotations

import json
import threading
import time

import pytest

from var_jax.parallel import watch
from var_jax.parallel.watch import Beat, Watch, late_ones, standstill

HOSTS = ("a", "b", "c")


def beats(*at):
    return {index: Beat(1, phase, step, 0.0) for index, (phase, step) in enumerate(at)}


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


class Store:
    """The coordinator's, in memory."""

    def __init__(self):
        self.content = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        if key in self.content and not allow_overwrite:
            raise RuntimeError("ALREADY_EXISTS")
        self.content[key] = value

    def key_value_dir_get(self, key):
        return [item for item in self.content.items() if item[0].startswith(key)]

    def blocking_key_value_get(self, key, timeout_in_ms):
        until = time.monotonic() + timeout_in_ms / 1000
        while key not in self.content:
            if time.monotonic() > until:
                raise RuntimeError("DEADLINE_EXCEEDED")
            time.sleep(0.01)
        return self.content[key]


@pytest.fixture
def ends(monkeypatch):
    """What watches would have ended their processes with."""
    monkeypatch.setattr(watch, "_BEAT_SECONDS", 0.05)
    monkeypatch.setattr(watch, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(watch, "LATE_SECONDS", 0.3)
    found = []

    def end(self, text, code):
        found.append((self._index, text, code))
        self._ended.set()

    monkeypatch.setattr(Watch, "_end", end)
    return found


def waited(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_one_that_is_not_heard_of_ends_all(ends):
    store, said = Store(), []
    watches = [Watch(store, index, HOSTS, said.append) for index in range(3)]
    for one in watches:
        one.at("step", 5)
    waited(lambda: said)  # nobody gets anywhere
    assert said[0].startswith("all 3 processes: step of step 5 for")
    watches[2].mute()  # as if it had been killed
    waited(lambda: len({index for index, _, _ in ends}) == 2)
    for index, text, code in ends:
        assert (index in (0, 1), code) == (True, watch.LOST)
        assert text.startswith("process 2 (c) has died: not heard of for ")
        assert text.endswith(", last in step of step 5")


def test_one_that_compiles_may_be_silent(ends):
    store = Store()
    watches = [Watch(store, index, HOSTS) for index in range(2)]
    watches[1].at("compile", 1)
    time.sleep(0.3)
    watches[1].mute()
    time.sleep(1.5)
    assert not ends
    watches[0].stop()


def test_one_that_fails_ends_the_others(ends):
    store = Store()
    watches = [Watch(store, index, HOSTS) for index in range(3)]
    watches[1].fail("process 1 ended: of itself", 7)
    waited(lambda: len(ends) == 2)
    assert sorted(ends) == [(index, "process 1 ended: of itself", 7) for index in (0, 2)]
    watches[1].stop()


def test_one_that_is_done_is_not_missed(ends):
    store = Store()
    watches = [Watch(store, index, HOSTS) for index in range(3)]
    watches[1].stop()
    time.sleep(1.5)
    assert not ends
    for one in watches:
        one.stop()


def test_without_the_coordinator(ends):
    store = Store()
    one = Watch(store, 1, HOSTS)

    def gone(*_):
        raise RuntimeError("UNAVAILABLE: connection reset")

    store.blocking_key_value_get = gone
    waited(lambda: ends)
    assert ends == [(1, "process 0 (a) has died, or cannot be reached any more (UNAVAILABLE: connection reset)", 1)]
    one.stop()


def test_the_newest_beat_is_the_last_to_be_told(ends, monkeypatch):
    """A slow word about the compiling arrives before the one that it is over: else a death would go unnoticed."""
    store, slow, held = Store(), threading.Event(), threading.Event()
    inner = store.key_value_set

    def key_value_set(key, value, allow_overwrite=False):
        if '"compile"' in value and threading.current_thread().name == "watch":
            held.set()
            slow.wait(5)
        inner(key, value, allow_overwrite)

    monkeypatch.setattr(store, "key_value_set", key_value_set)
    monkeypatch.setattr(watch, "_BEAT_SECONDS", 60.0)  # one beat of the thread, and those of `at`
    one = Watch(store, 1, HOSTS)
    one.at("compile", 1)
    beating = threading.Thread(target=one._beat, name="watch")
    beating.start()
    assert held.wait(5)
    moving = threading.Thread(target=one.at, args=("data", 2))
    moving.start()
    time.sleep(0.1)
    slow.set()
    beating.join()
    moving.join()
    (told,) = (value for key, value in store.content.items() if "beats/1" in key)
    one._ended.set()
    assert json.loads(told)[1:3] == ["data", 2]
