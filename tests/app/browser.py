"""A headless Chromium (Debian's `chromium` and `chromium-driver`), and what a person does on the page with it."""

from __future__ import annotations

import base64
import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

selenium = pytest.importorskip("selenium", reason="selenium is not installed (launch/requirements-ci.txt)")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

SECONDS = 120  # for a picture, compilation included


def open_browser(downloads: Path) -> webdriver.Chrome:
    """Chromium without a window, saving to a folder; skips the test where there is none."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("chromium is not installed (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    switches = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1500,1150")
    for switch in (*switches, "--force-prefers-reduced-motion", f"--user-data-dir={tempfile.mkdtemp()}"):
        options.add_argument(switch)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


class Page:
    """The page as a person uses it."""

    def __init__(self, browser: webdriver.Chrome, url: str, pictures: Path | None = None) -> None:
        self.browser, self._pictures = browser, pictures
        browser.get(url)
        self.wait(lambda: self.find("draw").is_enabled())

    def wait(self, holds):
        """Until it holds, or the page complains."""

        def ready(_):
            return holds() or self.complaint()

        WebDriverWait(self.browser, SECONDS).until(ready)

    def find(self, name):
        return self.browser.find_element(By.ID, name)

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def complaint(self) -> str:
        return self.find("error").text

    def set(self, name, value) -> None:
        """A field, told as typing would tell it."""
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
        self.browser.execute_script(script, self.find(name), str(value))

    def choose(self, name, text) -> None:
        Select(self.find(name)).select_by_visible_text(text)

    def draw(self, classes: list[int], each: int = 1) -> None:
        self.find("clear").click()
        for label in classes:
            self.all("#classes input")[label].click()
        self.set("per_class", each)
        self.find("draw").click()
        self.wait(lambda: self.find("draw").is_enabled())

    def paint(self, *points: tuple[float, float]) -> None:
        """One stroke over the picture through points that are parts of its width and height."""
        mask = self.find("mask")
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", mask)
        width, height = mask.size["width"], mask.size["height"]
        places = [(round((x - 0.5) * width), round((y - 0.5) * height)) for x, y in points]
        actions = ActionChains(self.browser, duration=50).move_to_element_with_offset(mask, *places[0]).click_and_hold()
        for place in places[1:]:
            actions.move_to_element_with_offset(mask, *place)
        actions.release().perform()

    def apply(self) -> None:
        self.find("apply").click()
        self.wait(lambda: self.find("apply").is_enabled())

    def canvas(self, name: str) -> np.ndarray:
        """[H, W, 4] of a canvas."""
        script = "return arguments[0].toDataURL('image/png').split(',')[1]"
        content = base64.b64decode(self.browser.execute_script(script, self.find(name)))
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))

    def grown(self) -> list[str]:
        """What the first picture shows in turn after "Grow again", for somebody whom motion does not disturb."""
        motion = {"features": [{"name": "prefers-reduced-motion", "value": "no-preference"}]}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", motion)
        script = """
            const image = document.querySelector("figure img");
            window.shown = [];
            new MutationObserver(() => window.shown.push(image.src)).observe(image, {attributeFilter: ["src"]});
        """
        self.browser.execute_script(script)
        last = self.all("figure img")[0].get_attribute("src")
        self.find("play").click()
        self.wait(lambda: self.browser.execute_script("return window.shown.at(-1)") == last)
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        return self.browser.execute_script("return window.shown")

    def keep(self, name: str) -> None:
        """A screenshot, where somebody wants to look at some."""
        if self._pictures is not None:
            self._pictures.mkdir(parents=True, exist_ok=True)
            self.browser.save_screenshot(str(self._pictures / f"{name}.png"))

    def console(self) -> list[str]:
        """What the browser had to complain about: scripts that failed, addresses refused by the page's policy."""
        return [entry["message"] for entry in self.browser.get_log("browser")]
