"""Processes find each other before JAX joins them.

Why it is ours: docs/reliability.md promises one sentence and exit code 2 where a process is missing, one too many,
unreachable or of other versions. In all of these `jax.distributed.initialize` of JAX 0.10 to 0.12 aborts the process
with SIGABRT and a page of text that names no process, however its time-outs are set; it raises nothing.

So they meet first at the coordinator's address: each sends its place and its versions, and all get the same answer,
which is empty or the one sentence that every one of them ends with. Their connections stay open for the watch.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from var_jax.errors import InputError

_SECONDS_BETWEEN_TRIES = 0.2
_SECONDS_FOR_A_MESSAGE = 10
_LONGEST = 1 << 20  # bytes of a message


class Place(NamedTuple):
    """A process among others.

    Attributes:
      address: HOST:PORT of the first process, which all can reach.
      count: how many there are.
      index: which one this is, from 0.
      device_ids: those of this machine's devices that are this process's own; None: all.
    """

    address: str
    count: int
    index: int
    device_ids: tuple[int, ...] | None = None


def meet(place: Place, versions: dict[str, str], seconds: float) -> tuple[list[str], dict[int, Connection]]:
    """Waits for all processes and compares them.

    Args:
      place: this process.
      versions: of everything that must be the same everywhere, by name.
      seconds: to wait at most.

    Returns:
      The hosts' names by index, and open connections by index: of process 0 to all others, of any other to process 0.

    Raises:
      InputError: the same sentence in every process that is there: which one is missing, or differs and how; or that
        the first process cannot be reached.
    """
    own = {"index": place.index, "count": place.count, "host": socket.gethostname(), "versions": versions}
    answer, peers = (_receive_all if place.index == 0 else _ask)(place, own, seconds)
    if answer["error"]:
        raise InputError(answer["error"])
    return answer["hosts"], peers


def _ask(place: Place, own: dict[str, Any], seconds: float) -> tuple[dict[str, Any], dict[int, Connection]]:
    """The answer of the first process, and the connection to it."""
    host, _, port = place.address.rpartition(":")
    deadline, reason = time.monotonic() + seconds, "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            peer = _connection(socket.create_connection((host.strip("[]"), int(port)), timeout=left))
            _send(peer, own)
            # The answer comes when everyone is there; the first process gives up by itself, a little later at most.
            if peer.poll(left + _SECONDS_FOR_A_MESSAGE):
                return _read(peer), {0: peer}
        except (OSError, EOFError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            time.sleep(_SECONDS_BETWEEN_TRIES)
    raise InputError(
        f"process {place.index} of {place.count}: the first process, at {place.address}, could not be reached for "
        f"{seconds:.0f} s ({reason}); see that it runs, and that nothing between the machines closes the port"
    )


def _receive_all(place: Place, own: dict[str, Any], seconds: float) -> tuple[dict[str, Any], dict[int, Connection]]:
    """The first process: waits for the others and answers all of them alike; the answer and their connections."""
    present, peers, error = {0: own}, [], None
    deadline = time.monotonic() + seconds
    with _listen(int(place.address.rpartition(":")[2])) as listener:
        while error is None and len(present) < place.count:
            listener.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                peer = _connection(listener.accept()[0])
                other = _read(peer)
            except TimeoutError:
                missing = ", ".join(str(index) for index in range(place.count) if index not in present)
                error = f"{len(present)} of {place.count} processes came within {seconds:.0f} s, missing: {missing}; "
                error += "start them too, or give all of them the count of those that there are"
            except (OSError, EOFError, ValueError):  # a stranger at the door
                continue
            else:
                error = _misplaced(other, present, place.count)
                peers.append((other["index"], peer))
                present.setdefault(other["index"], other)
    answer = {"error": error or _difference(present), "hosts": [present[index]["host"] for index in sorted(present)]}
    for _, peer in peers:
        with contextlib.suppress(OSError):
            _send(peer, answer)
    return answer, dict(peers)


def _listen(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise InputError(f"port {port} of the first process cannot be used ({error.strerror}); take another") from None


def _misplaced(other: dict[str, Any], present: dict[int, dict[str, Any]], count: int) -> str | None:
    """The sentence about a place that cannot be: another count, or an index that is taken."""
    index, host = other["index"], other["host"]
    if other["count"] != count:
        return (
            f"process {index} on {host} is one of {other['count']}, process 0 on {present[0]['host']} one of {count}; "
            "give all of them the same count"
        )
    if index in present:
        return f"process {index} is there twice, on {host} and {present[index]['host']}; give each an index of its own"
    return None


def _difference(present: dict[int, dict[str, Any]]) -> str | None:
    """The first version that is not the same everywhere."""
    first = present[0]
    for index, other in sorted(present.items()):
        for name, version in first["versions"].items():
            if (found := other["versions"].get(name)) != version:
                return (
                    f"{name} is {version} in process 0 on {first['host']} and {found} in process {index} on "
                    f"{other['host']}; install the same versions everywhere"
                )
    return None


def _connection(opened: socket.socket) -> Connection:
    """Messages over a socket, of which none takes long; a silent stranger is an OSError."""
    opened.settimeout(None)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        opened.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _SECONDS_FOR_A_MESSAGE, 0))
    return Connection(opened.detach())


def _send(peer: Connection, content: dict[str, Any]) -> None:
    peer.send_bytes(json.dumps(content).encode())


def _read(peer: Connection) -> dict[str, Any]:
    return json.loads(peer.recv_bytes(_LONGEST))
