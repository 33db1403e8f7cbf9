"""Processes that meet, as threads: who is let in, who is missing, and that all get the same answer."""

from __future__ import annotations

import concurrent.futures
import socket

import pytest

from var_jax.errors import InputError
from var_jax.parallel.rendezvous import Place, meet


@pytest.fixture
def address():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def met(*places, seconds=20.0, versions=None):
    """What each gets: hosts, or the error's text."""

    def one(number):
        try:
            return meet(places[number], (versions or {}).get(number, {"jax": "1.0"}), seconds)[0]
        except InputError as error:
            return str(error)

    with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(one, range(len(places))))


def test_all_come(address):
    assert met(*(Place(address, 5, index) for index in (3, 1, 0, 4, 2))) == [[socket.gethostname()] * 5] * 5


def test_the_port_is_free_afterwards(address):
    for _ in range(3):
        assert met(Place(address, 2, 0), Place(address, 2, 1)) == [[socket.gethostname()] * 2] * 2


def test_connections_stay_open(address):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        all_peers = list(pool.map(lambda index: meet(Place(address, 3, index), {}, 20.0)[1], range(3)))
    assert [sorted(peers) for peers in all_peers] == [[1, 2], [0], [0]]
    for index in (1, 2):
        all_peers[index][0].send_bytes(b"%d" % index)
        assert all_peers[0][index].recv_bytes() == b"%d" % index
    with socket.create_server(("", int(address.rpartition(":")[2]))):  # as JAX's coordinator does
        pass


def test_versions_differ(address):
    found = met(*(Place(address, 3, index) for index in range(3)), versions={2: {"jax": "0.9"}})
    assert len(set(found)) == 1
    assert "jax is 1.0 in process 0" in found[0]
    assert "0.9 in process 2" in found[0]


def test_a_count_differs(address):
    found = met(Place(address, 2, 0), Place(address, 4, 3))
    assert len(set(found)) == 1
    assert "process 3 on" in found[0]
    assert "is one of 4" in found[0]


def test_a_place_is_taken_twice(address):
    found = met(Place(address, 3, 0), Place(address, 3, 1), Place(address, 3, 1))
    assert all("process 1 is there twice" in text for text in found)


def test_one_is_missing(address):
    found = met(Place(address, 4, 0), Place(address, 4, 2), seconds=1.0)
    assert set(found) == {found[0]}
    assert found[0].startswith("2 of 4 processes came within 1 s, missing: 1, 3; ")


def test_nobody_answers(address):
    (found,) = met(Place(address, 2, 1), seconds=0.5)
    assert f"process 1 of 2: the first process, at {address}, could not be reached for 0 s" in found


def test_strangers_do_not_disturb(address):
    port = int(address.rpartition(":")[2])

    def stranger():
        for _ in range(200):
            try:
                with socket.create_connection(("localhost", port), timeout=5) as connection:
                    return connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            except OSError:
                continue

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(met, Place(address, 2, 0))
        pool.submit(stranger).result()
        assert met(Place(address, 2, 1)) == first.result() == [[socket.gethostname()] * 2]


def test_a_port_in_use(address):
    with socket.create_server(("", int(address.rpartition(":")[2]))):
        (found,) = met(Place(address, 2, 0), seconds=1.0)
    assert "of the first process cannot be used" in found
