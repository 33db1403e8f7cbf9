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
    loop, told, address = asyncio.new_event_loop(), threading.Event(), []

    def ready(url: str) -> None:
        address.append(url)
        told.set()

    task = loop.create_task(serve(bundle, "127.0.0.1", 0, ready))
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([task])))
    thread.start()
    try:
        assert told.wait(60)
        yield address[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("page") / "model"
    save_model(folder, drawn_model())
    return load(folder)


@pytest.fixture(scope="session")
def url(bundle: Bundle) -> Iterator[str]:
    with served(bundle) as address:
        yield address
