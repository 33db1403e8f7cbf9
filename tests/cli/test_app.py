"""`var-jax app`: what it refuses before it serves. The page itself is tested in tests/app/."""

from __future__ import annotations

import socket
import sys

import pytest


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        (["--model", "{missing}"], "missing: no such model directory"),
        (["--model", "{only}"], "has a tokenizer only"),
        (["--port", "65536"], "--port 65536: expected 0 to 65535"),
        (["--port", "http"], "invalid int value: 'http'"),
        (["--host", "256.0.0.1", "--port", "0"], "cannot listen on 256.0.0.1, port 0 ("),
    ],
)
def test_what_cannot_be_served(pair, tmp_path, refused, options, needle):
    given = [option.format(missing=tmp_path / "missing", only=pair.tokenizer_only) for option in options]
    assert needle in refused("app", *(["--model", pair.model] if "--model" not in given else []), *given)


def test_a_taken_port(pair, refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1, port {port}" in refused("app", "--model", pair.model, "--port", port)


def test_without_the_extra(pair, refused, monkeypatch):
    monkeypatch.delitem(sys.modules, "var_jax.app.server", raising=False)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert "pip install 'var_jax[app]'" in refused("app", "--model", pair.model)
