"""Processes find each other before JAX joins them, because what keeps them apart ends a process inside JAX.

JAX's own client aborts the process, without an exception, where the coordinator does not answer, where a process is
missing or where there is one too many. So they meet first at the coordinator's address: each tells its place and its
versions, and all get the same answer, which is nothing or the one sentence that every one of them ends with.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any, NamedTuple

from var_jax.errors import InputError

_SECONDS_BETWEEN_TRIES = 0.2
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


def meet(place: Place, versions: dict[str, str], seconds: float) -> list[str]:
    """Waits for all processes and compares them.

    Args:
      place: this process.
      versions: of what must be the same everywhere, by name.
      seconds: to wait at most.

    Returns:
      The hosts' names, by index.

    Raises:
      InputError: the same sentence in every process that is there: who is missing, or differs in what; or that the
        first process cannot be reached.
    """
    own = {"index": place.index, "count": place.count, "host": socket.gethostname(), "versions": versions}
    deadline = time.monotonic() + seconds
    answer = _receive_all(place, own, deadline, seconds) if place.index == 0 else _ask(place, own, deadline, seconds)
    if answer["error"]:
        raise InputError(answer["error"])
    return answer["hosts"]


def _ask(place: Place, own: dict[str, Any], deadline: float, seconds: float) -> dict[str, Any]:
    """What the first process answers."""
    host, _, port = place.address.rpartition(":")
    reason = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=left) as connection:
                _send(connection, own)
                # The answer comes when everyone is there; the first process gives up by itself, a little later at most.
                connection.settimeout(left + 10)
                return _read(connection)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            time.sleep(_SECONDS_BETWEEN_TRIES)
    raise InputError(
        f"process {place.index} of {place.count}: the first process, at {place.address}, could not be reached for "
        f"{seconds:.0f} s ({reason}); see that it runs, and that nothing between the machines closes the port"
    )


def _receive_all(place: Place, own: dict[str, Any], deadline: float, seconds: float) -> dict[str, Any]:
    """The first process: waits for the others, and answers all of them alike."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(_listen(int(place.address.rpartition(":")[2])))
        present, connections = {0: own}, []
        error = None
        while error is None and len(present) < place.count:
            listener.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection = opened.enter_context(listener.accept()[0])
                connection.settimeout(10)
                other = _read(connection)
            except TimeoutError:
                if time.monotonic() < deadline:
                    continue
                missing = ", ".join(str(index) for index in range(place.count) if index not in present)
                error = f"{len(present)} of {place.count} processes came within {seconds:.0f} s, missing: {missing}; "
                error += "start them too, or give all of them the count of those that there are"
            except (OSError, ValueError):  # a stranger at the door
                continue
            else:
                connections.append(connection)
                error = _misplaced(other, present, place.count)
                present.setdefault(other["index"], other)
        error = error or _difference(present)
        answer = {"error": error, "hosts": [present[index]["host"] for index in sorted(present)]}
        for connection in connections:
            with contextlib.suppress(OSError):
                _send(connection, answer)
        for connection in connections:  # the other side closes first, and the port is free at once
            with contextlib.suppress(OSError):
                connection.recv(1)
    return answer


def _listen(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise InputError(f"port {port} of the first process cannot be used ({error.strerror}); take another") from None


def _misplaced(other: dict[str, Any], present: dict[int, dict[str, Any]], count: int) -> str | None:
    """What is wrong with the place that a process says it has."""
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


def _send(connection: socket.socket, content: dict[str, Any]) -> None:
    connection.sendall(json.dumps(content).encode() + b"\n")


def _read(connection: socket.socket) -> dict[str, Any]:
    received = b""
    while not received.endswith(b"\n"):
        part = connection.recv(65536)
        if not part or len(received) > _LONGEST:
            raise ConnectionError("the connection ended in the middle of a message")
        received += part
    content = json.loads(received)
    if not isinstance(content, dict):
        raise ValueError("no message of ours")
    return content
