"""A person draws, paints a mask and edits, in a headless Chromium.

PAGE_SCREENSHOTS=DIR keeps a screenshot of each step to look at.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.app.browser import Page, open_browser

pytestmark = pytest.mark.campaign


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads):
    opened = open_browser(downloads)
    yield opened
    opened.quit()


@pytest.fixture
def page(browser, url):
    folder = os.environ.get("PAGE_SCREENSHOTS")
    opened = Page(browser, url, Path(folder) if folder else None)
    yield opened
    assert opened.console() == []  # no failed script, nothing sought elsewhere, nothing against the page's policy


def saved_picture(tmp_path, width, height):
    path = tmp_path / "own.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


def downloaded(page, path):
    page.wait(path.exists)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_drawing_growing_and_editing(page, downloads):
    page.keep("1-opened")
    page.draw([0, 3], each=2)
    assert page.complaint() == ""
    assert page.find("progress").text == "4 of 4 drawn"
    assert [caption.text for caption in page.all("figcaption span")] == ["class 0", "class 0", "class 3", "class 3"]
    finest = [image.get_attribute("src") for image in page.all("figure img")]
    page.keep("2-drawn")
    page.set("scale", 1)
    assert page.find("scale_value").text == "1x1 (1 of 3)"
    coarse = [image.get_attribute("src") for image in page.all("figure img")]
    assert not set(coarse) & set(finest)
    page.set("scale", 3)
    grown = page.grown()
    assert len(grown) == len(set(grown)) == 3
    assert (grown[0], grown[-1]) == (coarse[0], finest[0])
    page.find("save_grid").click()
    assert downloaded(page, downloads / "pictures.png").shape == (14, 14, 3)
    page.all("figcaption button")[2].click()
    page.wait(lambda: page.find("apply").is_displayed())
    original = page.canvas("picture")
    assert original.shape == (6, 6, 4)
    page.set("brush", 2)
    page.paint((0.2, 0.3), (0.5, 0.3))
    marked = page.canvas("mask")[..., 3] > 0
    assert marked.any() and not marked[4:].any() and not marked[:, 5:].any()
    page.keep("3-painted")
    page.apply()
    assert page.complaint() == ""
    edited = page.canvas("picture")
    changed = np.any(edited != original, axis=-1)
    assert changed[marked].any()
    assert not changed[5].any()  # beyond the soft edge of a pixel
    assert not page.canvas("mask")[..., 3].any()
    page.find("save").click()
    np.testing.assert_array_equal(downloaded(page, downloads / "edited.png"), edited[..., :3])
    page.keep("4-in-painted")
    page.find("undo").click()
    page.wait(lambda: not page.find("undo").is_enabled())
    np.testing.assert_array_equal(page.canvas("picture"), original)


def test_an_uploaded_picture_and_the_other_tasks(page, tmp_path):
    page.find("upload").send_keys(str(saved_picture(tmp_path, 12, 9)))
    page.wait(lambda: page.find("apply").is_displayed())
    assert page.find("size").text == "12 x 9 pixels"
    page.choose("edit_class", "class 4")
    page.choose("task", "Out-paint")
    page.set("right", 6)
    page.apply()
    assert (page.complaint(), page.find("size").text) == ("", "18 x 9 pixels")
    page.keep("5-out-painted")
    page.choose("task", "Change class")
    before = page.canvas("picture")
    page.paint((0.7, 0.5), (0.9, 0.5))
    page.apply()
    assert page.complaint() == ""
    assert np.any(page.canvas("picture") != before)
    assert page.find("save").get_attribute("href").startswith("blob:")
    page.choose("task", "Enlarge")
    page.apply()
    assert (page.complaint(), page.find("size").text) == ("", "36 x 18 pixels")
    page.keep("6-enlarged")


def test_what_cannot_be_is_one_line(page, tmp_path):
    page.draw([])
    assert page.complaint() == "Choose a class first, or “without a class”."
    page.set("temperature", "")
    page.draw([0])
    assert page.complaint() == "Temperature: expected a number from 0.05 up."
    heavy = tmp_path / "heavy.png"
    heavy.write_bytes(saved_picture(tmp_path, 3, 3).read_bytes() + bytes(8 * 2**20))
    page.find("upload").send_keys(str(heavy))
    page.wait(page.complaint)
    assert page.complaint() == "heavy.png: 8 MiB at most are taken; send a smaller picture."
    page.keep("7-refused")
    text = tmp_path / "text.png"
    text.write_text("dear diary", encoding="utf-8")
    page.find("upload").send_keys(str(text))
    page.wait(lambda: "text" in page.complaint())
    assert page.complaint() == "text.png: is no picture that can be shown."
    page.find("upload").send_keys(str(saved_picture(tmp_path, 4, 4)))
    page.wait(lambda: page.find("apply").is_displayed())
    page.find("temperature").send_keys("1")
    page.apply()
    assert page.complaint() == "Paint over a part of the picture first."
