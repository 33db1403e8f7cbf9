"""The page's server on a free port of this machine, with a small drawn model, for all tests of this folder."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest

from tests.interop.checkpoints import drawn_model
from var_jax.app.server import serve
from var_jax.bundle import Bundle, load
from var_jax.model_directory import save_model


@contextlib.contextmanager
def served(bundle: Bundle) -> Iterator[str]:
    """The address of a page with this model."""
    told, found = threading.Event(), {}

    def ready(address: str) -> None:
        found["address"] = address
        told.set()

    async def run() -> None:
        found["loop"], found["task"] = asyncio.get_running_loop(), asyncio.current_task()
        with contextlib.suppress(asyncio.CancelledError):
            await serve(bundle, "127.0.0.1", 0, ready)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert told.wait(60)
        yield found["address"]
    finally:
        found["loop"].call_soon_threadsafe(found["task"].cancel)
        thread.join()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("page") / "model"
    save_model(folder, drawn_model())
    return load(folder)


@pytest.fixture(scope="session")
def url(bundle: Bundle) -> Iterator[str]:
    with served(bundle) as address:
        yield address
