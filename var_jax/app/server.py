"""The server of the page: seven addresses, nothing of the machine's files among them.

The page, its style and its two scripts are read from the package when the server starts; an address is looked up in a
table and never becomes a path. Models draw in one thread, and few requests may wait for it. The body of a request is
held in memory until it is answered, and nothing is written.

A page of another site cannot use it: requests name the host they think they talk to (which a re-bound name gets wrong),
and drawing accepts JSON alone, which a browser sends to another site only if that site allows it; this one never does.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from aiohttp import web

from var_jax.app import answers
from var_jax.bundle import Bundle
from var_jax.errors import InputError

MOST_WAITING = 8  # requests that draw or wait for it
SECONDS_TO_SEND = 60  # for a request's body, whose place in the queue is taken
LOCAL = ("127.0.0.1", "localhost", "[::1]")
_EVERYWHERE = ("0.0.0.0", "::")
_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/edit.js": ("edit.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Desk:
    """One thread that draws, and a short queue before it."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle, self._waiting = bundle, 0
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="draw")

    async def draw(self, answer: Callable[[Bundle, dict[str, Any]], dict[str, Any]], request: web.Request) -> Any:
        """The answer to a request in its turn; with the queue full it is refused before its body is read."""
        if self._waiting >= MOST_WAITING:
            raise web.HTTPServiceUnavailable(text=f"{self._waiting} requests are being drawn; try again in a while")
        self._waiting += 1
        try:
            content = await _json(request)
            return await asyncio.get_running_loop().run_in_executor(self._thread, answer, self._bundle, content)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Drops the requests that wait; the one that is being drawn ends."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def application(bundle: Bundle, host: str = LOCAL[0]) -> web.Application:
    """The page as an aiohttp application.

    Args:
      bundle: the model, with a transformer.
      host: the name to listen on; requests must name it, or this machine, unless the server listens everywhere.
    """
    app = web.Application(client_max_size=answers.MOST_BYTES, middlewares=[_guard(host)])
    desk, folder = Desk(bundle), files("var_jax.app") / "page"
    for address, (name, kind) in _FILES.items():
        app.router.add_get(address, _constant((folder / name).read_bytes(), kind))
    description = json.dumps(answers.described(bundle)).encode()
    app.router.add_get("/model", _constant(description, "application/json"))

    async def sample(request: web.Request) -> web.Response:
        return web.json_response(await desk.draw(answers.sample, request))

    async def edit(request: web.Request) -> web.Response:
        return web.json_response(await desk.draw(answers.edit, request))

    app.router.add_post("/sample", sample)
    app.router.add_post("/edit", edit)

    async def close(_: web.Application) -> None:
        desk.close()

    app.on_cleanup.append(close)
    return app


async def serve(bundle: Bundle, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until it is cancelled; calls `ready` with the address of the page. Port 0 is any free one.

    Raises:
      InputError: if it cannot listen there.
    """
    runner = web.AppRunner(application(bundle, host), access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise InputError(
                f"cannot listen on {host}, port {port} ({error.strerror}); choose another --port"
            ) from None
        name = f"[{host}]" if ":" in host else host
        ready(f"http://{name}:{runner.addresses[0][1]}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def _constant(content: bytes, kind: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type=kind, charset="utf-8")

    return handler


def _guard(host: str) -> Any:
    """Turns away other hosts' names, and every error into one line of JSON."""
    known = {*LOCAL, f"[{host}]" if ":" in host else host}

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if host not in _EVERYWHERE and _host(request) not in known:
                raise web.HTTPMisdirectedRequest(text="this page answers to the name of its own machine only")
            response = await handler(request)
        except web.HTTPException as refused:
            response = _refusal(refused.status, _line(refused))
        except InputError as error:
            response = _refusal(400, str(error))
        except Exception:  # logged in full for the operator, and in short for the page
            _log.exception("%s failed", request.path)
            response = _refusal(500, "something went wrong; the terminal of var-jax app shows the error")
        response.headers.update(_HEADERS)
        return response

    return guard


def _host(request: web.Request) -> str:
    """The host that a request names, without its port."""
    return re.sub(r":\d+$", "", request.headers.get("Host", "").lower())


def _line(refused: web.HTTPException) -> str:
    if refused.status == 413:
        return f"the request is too large: {answers.MOST_BYTES // 2**20} MiB at most; send a smaller picture"
    return " ".join((refused.text or refused.reason).split())


def _refusal(status: int, line: str) -> web.Response:
    return web.json_response({"error": line}, status=status)


async def _json(request: web.Request) -> dict[str, Any]:
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="expected application/json")
    try:
        async with asyncio.timeout(SECONDS_TO_SEND):
            content = await request.read()
        parsed = json.loads(content)
    except TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the request took more than {SECONDS_TO_SEND} s to arrive") from None
    except (ValueError, RecursionError):
        raise InputError("the request is not JSON") from None
    if not isinstance(parsed, dict):
        raise InputError("the request: expected an object of JSON")
    return parsed
