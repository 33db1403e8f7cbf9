"""What the page's server answers, and what it refuses: always one line of JSON, never a file of the machine."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import io
import json
import threading
from urllib.parse import urlsplit

import jax
import numpy as np
import pytest
from PIL import Image

from tests.app.conftest import served
from var_jax.app import answers, server
from var_jax.generation.batching import class_keys
from var_jax.generation.pictures import to_uint8
from var_jax.generation.settings import DEFAULTS

JSON = {"Content-Type": "application/json"}


def ask(url, method, path, body=None, headers=None):
    """Status and JSON, of a path sent exactly as it is given."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def post(url, path, **asked):
    response, content = ask(url, "POST", path, json.dumps(asked), JSON)
    return response.status, json.loads(content)


def png(image):
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG")
    return base64.b64encode(content.getvalue()).decode()


def picture(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


NOISE = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
MARKED = np.zeros((9, 12), np.uint8)
MARKED[3:6, 4:8] = 255
EDIT = {"task": "inpaint", "image": png(NOISE), "mask": png(MARKED), "seed": 1}


def test_the_page_needs_nothing_from_elsewhere(url):
    for path, kind in {"/": "html", "/page.css": "css", "/page.js": "javascript", "/edit.js": "javascript"}.items():
        response, content = ask(url, "GET", path)
        assert response.status == 200
        assert response.headers["Content-Type"] == f"text/{kind}; charset=utf-8"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert b"http://" not in content and b"https://" not in content


def test_the_model_is_described(url):
    model = json.loads(ask(url, "GET", "/model")[1])
    assert model["classes"] == [f"class {label}" for label in range(5)]
    assert (model["size"], model["sides"], model["most_upload"]) == (6, [1, 2, 3], 8 * 2**20)
    assert model["defaults"] == dataclasses.asdict(DEFAULTS)


def test_pictures_are_those_of_the_sample_command(url, bundle):
    settings = {"guidance": 2.0, "top_k": 10, "top_p": 0.9, "temperature": 1.1, "schedule": "power:2", "smooth": False}
    status, answer = post(url, "/sample", pictures=[[3, 0], [None, 2], [1, 1]], seed=7, **settings)
    assert status == 200
    frames = np.stack([[picture(frame) for frame in one["frames"]] for one in answer["pictures"]], axis=1)
    keys = class_keys(7, [3, 5, 1, 3], [0, 2, 1, 0])
    np.testing.assert_array_equal(frames, to_uint8(bundle.grow([3, 5, 1, 3], keys, **settings))[:, :3])
    assert np.any(frames[0] != frames[-1])


def test_edits_are_those_of_the_edit_command(url, bundle):
    status, answer = post(url, "/edit", **EDIT, guidance=3.0, **{"class": 2})
    assert status == 200
    expected = bundle.edit(NOISE, "inpaint", jax.random.key(np.uint32(1)), mask=MARKED > 0, label=2, guidance=3.0)
    np.testing.assert_array_equal(picture(answer["image"]), expected)
    assert np.any(expected != NOISE)
    usual = {"image": png(NOISE), "seed": 0, "class": 2}
    extended = post(url, "/edit", task="outpaint", extend=[2, 0, 1, 3], **usual)[1]
    assert picture(extended["image"]).shape == (12, 15, 3)
    enlarged = post(url, "/edit", task="upscale", factor=3, **usual | {"class": None})[1]
    assert picture(enlarged["image"]).shape == (27, 36, 3)


@pytest.mark.parametrize(
    "path",
    ["/file=/etc/passwd", "/../../etc/passwd", "/..%2f..%2f..%2fetc/passwd", "//etc/passwd", "/page/../answers.py"]
    + [
        "/index.html",
        "/page.css/../../answers.py",
        "/%2e%2e/answers.py",
        "/static/page.js",
        "/gradio_api/file=/etc/hosts",
    ],
)
def test_no_file_of_the_machine_is_reachable(url, path):
    response, content = ask(url, "GET", path)
    assert response.status == 404
    assert json.loads(content) == {"error": "404: Not Found"}


def test_other_sites_cannot_use_it(url):
    assert ask(url, "GET", "/model", headers={"Host": "example.org"})[0].status == 421
    assert ask(url, "GET", "/model", headers={"Host": f"localhost:{urlsplit(url).port}"})[0].status == 200
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert ask(url, "POST", "/sample", "{}", {"Content-Type": kind})[0].status == 415
    response, _ = ask(url, "OPTIONS", "/sample", headers={"Origin": "http://example.org"})
    assert response.status == 405
    assert not [name for name in response.headers if name.lower().startswith("access-control-")]


def test_an_oversized_request_is_refused(url):
    response, content = ask(url, "POST", "/edit", b" " * (answers.MOST_BYTES + 1), JSON)
    assert response.status == 413
    assert json.loads(content) == {"error": "the request is too large: 12 MiB at most; send a smaller picture"}


def test_a_picture_of_too_many_pixels_is_refused_undecoded(url):
    status, answer = post(url, "/edit", **EDIT | {"image": png(np.zeros((4097, 1024), np.uint8))})
    assert (status, "1024 x 4097 pixels, the limit is 4194304" in answer["error"]) == (400, True), answer


@pytest.mark.parametrize(
    ("path", "changes", "needle"),
    [
        ("/sample", {"pictures": []}, "pictures: expected a list of 1 to 4 pairs"),
        ("/sample", {"pictures": [[0, 0]] * 5}, "pictures: expected a list of 1 to 4 pairs"),
        ("/sample", {"pictures": [3]}, "pictures: expected pairs"),
        ("/sample", {"pictures": [[6, 0]]}, "class 6: expected a whole number from 0 to 5"),
        ("/sample", {"pictures": [["disc", 0]]}, "class 'disc': expected a whole number"),
        ("/sample", {"pictures": [[True, 0]]}, "class True: expected a whole number"),
        ("/sample", {"pictures": [[0, -1]]}, "index -1: expected a whole number from 0"),
        ("/sample", {"seed": 2**32}, "seed 4294967296: expected a whole number from 0 to 4294967295"),
        ("/sample", {"guidance": float("nan")}, "guidance nan: expected a finite number"),
        ("/sample", {"guidance": "strong"}, "guidance 'strong': expected a number"),
        ("/sample", {"temperature": 0}, "temperature 0: expected a number above 0"),
        ("/sample", {"top_p": [0.5, 0.5]}, "top_p [0.5, 0.5]: expected a number"),
        ("/sample", {"schedule": "cosine"}, "guidance schedule 'cosine'"),
        ("/sample", {"schedule": 3}, "schedule 3: expected text"),
        ("/sample", {"smooth": []}, "smooth []: expected true or false"),
        ("/edit", {"task": "paint"}, "task 'paint': expected one of inpaint"),
        ("/edit", {"task": ["vary"]}, "task ['vary']: expected one of inpaint"),
        ("/edit", {"task": "class"}, "task class: needs the class"),
        ("/edit", {"class": 5}, "class 5: expected a whole number from 0 to 4"),
        ("/edit", {"image": None}, "image: expected a picture file in base64"),
        ("/edit", {"image": "/etc/passwd"}, "image: is not base64"),
        (
            "/edit",
            {"image": base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0").decode()},
            "image: cannot be read as a picture",
        ),
        ("/edit", {"mask": png(MARKED[1:])}, "mask of 12 x 8 pixels: the picture has 12 x 9"),
        ("/edit", {"mask": png(0 * MARKED)}, "mask: is empty"),
        ("/edit", {"extend": [1, 1, 1, 1]}, "extend: belongs to the task outpaint, without a mask"),
        ("/edit", {"task": "outpaint", "mask": None, "extend": [1, 1]}, "extend: expected the pixels to add"),
        ("/edit", {"task": "outpaint", "mask": None, "extend": [4000, 0, 0, 4000]}, "a result of 4012 x 4009 pixels"),
        ("/edit", {"task": "upscale", "image": png(np.zeros((64, 64), np.uint8))}, "windows of the model, 64 at most"),
        ("/edit", {"task": "upscale", "factor": 9}, "factor 9: expected a whole number from 2 to 8"),
    ],
)
def test_what_cannot_be(url, path, changes, needle):
    usual = {"pictures": [[0, 0]], "seed": 0} if path == "/sample" else EDIT
    status, answer = post(url, path, **usual | changes)
    assert status == 400
    assert needle in answer["error"]
    assert "\n" not in answer["error"]


@pytest.mark.parametrize("body", ["{", "[" * 100_000, "[]", "\xff"])
def test_what_is_no_request(url, body):
    response, content = ask(url, "POST", "/sample", body.encode("latin1"), JSON)
    assert response.status == 400
    assert "request" in json.loads(content)["error"]


def test_a_request_that_does_not_arrive_gives_its_place_back(url, monkeypatch):
    monkeypatch.setattr(server, "SECONDS_TO_SEND", 0.05)
    response, content = ask(url, "POST", "/sample", None, JSON | {"Content-Length": "100"})
    assert response.status == 408
    assert "took more than 0.05 s" in json.loads(content)["error"]


def test_a_full_queue_says_so_and_empties(url, bundle, monkeypatch):
    """Of four requests at a time one draws, one waits, and two are turned away."""
    go, started = threading.Event(), threading.Semaphore(0)

    def slow(_, asked):
        started.release()
        assert go.wait(60)
        return {}

    monkeypatch.setattr(answers, "sample", slow)
    monkeypatch.setattr(server, "MOST_WAITING", 2)
    statuses = []
    with served(bundle) as small:
        threads = [threading.Thread(target=lambda: statuses.append(post(small, "/sample")[0])) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert started.acquire(timeout=60)
        while len(statuses) < 2:
            threads[0].join(0.01)
        assert statuses == [503, 503]
        go.set()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 200, 503, 503]
        assert post(small, "/sample")[0] == 200
