"""Google Cloud Storage on this machine, in memory: as much of its JSON API as gcsfs, TensorStore and epath use.

`with FakeGcs() as url:` serves every bucket name at `url`. Objects have generations and preconditions, since
TensorStore's database is only consistent by them.
"""

from __future__ import annotations

import email.parser
import email.policy
import itertools
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

_OBJECT = r"/storage/v1/b/([^/]+)/o/([^/]+)"


class Stored(NamedTuple):
    """One object."""

    content: bytes
    generation: int


class FakeGcs:
    """The server and what it holds."""

    def __init__(self) -> None:
        """Nothing is served before the `with`."""
        self.objects: dict[tuple[str, str], Stored] = {}
        self.uploads: dict[str, tuple[str, str, bytearray]] = {}
        self.lock, self.numbers = threading.RLock(), itertools.count(1)
        handler = type("Handler", (_Handler,), {"gcs": self})
        self._server = _Server(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def put(self, bucket: str, name: str, content: bytes) -> dict[str, Any]:
        """Stores and describes an object."""
        self.objects[bucket, name] = Stored(content, next(self.numbers))
        return self.describe(bucket, name)

    def describe(self, bucket: str, name: str) -> dict[str, Any]:
        """An object's resource, as the API writes it."""
        stored = self.objects[bucket, name]
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": str(len(stored.content)),
            "generation": str(stored.generation),
            "metageneration": "1",
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # TensorStore opens many connections at once

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients ask twice at once and hang up on the later answer; anything else is worth seeing."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Refused(Exception):
    """An answer other than 200."""


class _Handler(BaseHTTPRequestHandler):
    gcs: FakeGcs
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, parts.path)
            if match and self.command == method:
                try:
                    with self.gcs.lock:
                        status, content = 200, answer(self, *map(unquote, match.groups()))
                except _Refused as refused:
                    status, content = refused.args[0], b""
                self._send(status, content)  # not under the lock: a client may read late
                return
        self._send(501, f"{self.command} {self.path}".encode())

    do_GET = do_POST = do_PUT = do_DELETE = _handle

    def log_message(self, *_: object) -> None:
        """Silent."""

    def _send(self, status: int, answer: bytes | dict[str, Any] | Stored) -> None:
        headers = {"Content-Type": "application/json"}
        if isinstance(answer, Stored):
            headers = {"Content-Type": "application/octet-stream", "x-goog-generation": str(answer.generation)}
            status, answer = self._part(answer.content, headers)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        if isinstance(answer, dict) and "location" in answer:
            headers["Location"] = answer["location"]
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if status != 304:
            self.wfile.write(content)

    def _part(self, content: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if not wanted:
            return 200, content
        first, last = wanted.groups()
        begin = int(first) if first else max(len(content) - int(last), 0)
        end = min(int(last) + 1, len(content)) if first and last else len(content)
        if begin >= len(content):
            return 416, b""
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
        return 206, content[begin:end]

    def _check(self, bucket: str, name: str) -> None:
        """Preconditions on the generation; 0 stands for an object that is not there."""
        stored = self.gcs.objects.get((bucket, name))
        now = stored.generation if stored else 0
        if int(self.query.get("ifGenerationMatch", now)) != now:
            raise _Refused(412)
        if "ifGenerationNotMatch" in self.query and int(self.query["ifGenerationNotMatch"]) == now:
            raise _Refused(304 if self.command == "GET" else 412)

    def bucket(self, bucket: str) -> dict[str, Any]:
        """Every bucket is there."""
        return {"kind": "storage#bucket", "name": bucket, "id": bucket}

    def list(self, bucket: str) -> dict[str, Any]:
        """Objects by name, those below a delimiter gathered; a page holds all of them."""
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        first, end = self.query.get("startOffset", ""), self.query.get("endOffset", "")
        items, prefixes = [], set()
        for owner, name in sorted(self.gcs.objects):
            if owner != bucket or not name.startswith(prefix) or name < first or (end and name >= end):
                continue
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                prefixes.add(name[: cut + len(delimiter)])
            else:
                items.append(self.gcs.describe(bucket, name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}

    def get(self, bucket: str, name: str) -> dict[str, Any] | Stored:
        """An object's content, or what is known of it."""
        if (bucket, name) not in self.gcs.objects:
            raise _Refused(404)
        self._check(bucket, name)
        media = self.query.get("alt") == "media"
        return self.gcs.objects[bucket, name] if media else self.gcs.describe(bucket, name)

    def delete(self, bucket: str, name: str) -> bytes:
        """Removes an object."""
        if (bucket, name) not in self.gcs.objects:
            raise _Refused(404)
        self._check(bucket, name)
        del self.gcs.objects[bucket, name]
        return b""

    def insert(self, bucket: str) -> dict[str, Any]:
        """An upload in one request, or the beginning of one in many."""
        kind, name, content = self.query["uploadType"], self.query.get("name"), self.body
        if kind == "multipart":
            head = f"Content-Type: {self.headers['Content-Type']}\n\n".encode()
            message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head)
            boundary = message.get_boundary().encode()
            _, about, rest = self.body.split(b"--" + boundary, 2)
            name = json.loads(about.replace(b"\r\n", b"\n").split(b"\n\n", 1)[1])["name"]
            blank = b"\r\n\r\n" if b"\r\n\r\n" in rest.split(b"\n\n", 1)[0] else b"\n\n"
            content = rest.split(blank, 1)[1].rsplit(b"--" + boundary, 1)[0]
            content = content.removesuffix(b"\n").removesuffix(b"\r") if blank[:1] == b"\r" else content[:-1]
        self._check(bucket, name)
        if kind == "resumable":
            number = str(next(self.gcs.numbers))
            self.gcs.uploads[number] = (bucket, name, bytearray())
            return {"location": f"http://{self.headers['Host']}/upload/storage/v1/b/{bucket}/resume/{number}"}
        return self.gcs.put(bucket, name, content)

    def resume(self, bucket: str, number: str) -> dict[str, Any]:
        """A further part of an upload; the last one says how much there is in all."""
        _, name, content = self.gcs.uploads[number]
        content += self.body
        if not (self.headers.get("Content-Range") or "/0").endswith(f"/{len(content)}"):
            raise _Refused(308)
        return self.gcs.put(bucket, name, bytes(content))

    def move(self, bucket: str, old: str, new: str) -> dict[str, Any]:
        """Another name for an object."""
        stored = self.get(bucket, old) and self.gcs.objects.pop((bucket, old))
        return self.gcs.put(bucket, new, stored.content)

    def rewrite(self, bucket: str, old: str, other: str, new: str) -> dict[str, Any]:
        """A copy."""
        self.get(bucket, old)
        resource = self.gcs.put(other, new, self.gcs.objects[bucket, old].content)
        return {"done": True, "resource": resource}


_ROUTES = (
    ("GET", r"/storage/v1/b/([^/]+)", _Handler.bucket),
    ("GET", r"/storage/v1/b/([^/]+)/o/?", _Handler.list),
    ("GET", _OBJECT, _Handler.get),
    ("GET", r"/download" + _OBJECT, _Handler.get),
    ("DELETE", _OBJECT, _Handler.delete),
    ("POST", _OBJECT + r"/moveTo/o/([^/]+)", _Handler.move),
    ("POST", _OBJECT + r"/rewriteTo/b/([^/]+)/o/([^/]+)", _Handler.rewrite),
    ("POST", r"/upload/storage/v1/b/([^/]+)/o/?", _Handler.insert),
    ("POST", r"/upload/storage/v1/b/([^/]+)/resume/(\d+)", _Handler.resume),
    ("PUT", r"/upload/storage/v1/b/([^/]+)/resume/(\d+)", _Handler.resume),
)
