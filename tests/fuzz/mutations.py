"""Damage drawn at random: bits, cuts, splices and repeats of bytes, and hostile values in JSON."""

from __future__ import annotations

import json
import random
from typing import Any

HOSTILE = (None, True, -1, 0, 0.5, float("nan"), 1e308, 10**9, 10**30, "", "\0", "../x", "x" * 10_000, [], {}, [[]])
_EXTREMES = (b"\0", b"\xff", b"\x7f", b"\x80")


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The bytes with one to three kinds of damage."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        content = draw.choice(_KINDS)(bytearray(content or b"\0"), draw)
    return content


def _flipped(content: bytearray, draw: random.Random) -> bytes:
    for _ in range(draw.choice((1, 1, 2, 8))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


def _cut(content: bytearray, draw: random.Random) -> bytes:
    return bytes(content[: draw.randrange(len(content))])


def _piece(content: bytearray, draw: random.Random) -> tuple[int, int]:
    start = draw.randrange(len(content))
    return start, min(len(content), start + draw.choice((1, 2, 4, 8, 30, 300, len(content))))


def _removed(content: bytearray, draw: random.Random) -> bytes:
    start, end = _piece(content, draw)
    return bytes(content[:start] + content[end:])


def _repeated(content: bytearray, draw: random.Random) -> bytes:
    start, end = _piece(content, draw)
    times = draw.choice((1, 2, 1000 if end - start < 1000 else 2))
    return bytes(content[:end] + content[start:end] * times + content[end:])


def _spliced(content: bytearray, draw: random.Random) -> bytes:
    start, end = _piece(content, draw)
    place = draw.randrange(len(content))
    return bytes(content[:place] + content[start:end] + content[place + end - start :])


def _extreme(content: bytearray, draw: random.Random) -> bytes:
    start, end = _piece(content, draw)
    end = min(end, start + 8)
    content[start:end] = draw.choice(_EXTREMES) * (end - start)
    return bytes(content)


_KINDS = (_flipped, _flipped, _cut, _removed, _repeated, _spliced, _extreme)


def damaged_json(content: bytes, draw: random.Random) -> bytes:
    """JSON with a value replaced, removed, repeated or nested deep; every third time with its bytes damaged."""
    if draw.random() < 0.3:
        return damaged(content, draw)
    tree = json.loads(content)
    for _ in range(draw.choice((1, 1, 2))):
        places = list(_places(tree))
        if not places:
            break
        node, key = draw.choice(places)
        kind = draw.randrange(6)
        if kind == 0:
            del node[key]
        elif kind == 1:
            node[key] = [node[key]] * draw.choice((2, 1000))
        elif kind == 2:
            other, where = draw.choice(places)
            node[key] = json.loads(json.dumps(other[where]))
        else:
            node[key] = draw.choice(HOSTILE)
    text = json.dumps(tree)
    if draw.random() < 0.05:
        text = text.replace(":", ":" + "[" * 100_000, 1)
    return text.encode()


def _places(node: Any) -> Any:
    """Every (container, key) in a tree."""
    for key, value in list(node.items()) if isinstance(node, dict) else list(enumerate(node)):
        yield node, key
        if isinstance(value, (dict, list)):
            yield from _places(value)
