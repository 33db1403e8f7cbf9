"""No version with a published flaw that matters here satisfies what setup.py asks for, or is pinned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The first version without the flaws: of decoders (DDS, PSD, FITS), of requests and their bodies, of archives' paths.
MENDED = {"pillow": "12.2.0", "aiohttp": "3.13.3", "setuptools": "78.1.1"}


def versions(text: str, name: str) -> list[tuple[int, ...]]:
    """Every version that the text asks for by >= or ==."""
    found = re.findall(rf"(?m)(?:^|[\"\s\[]){name}(?:>=|==)([0-9.]+)", text)
    return [tuple(map(int, version.split("."))) for version in found]


@pytest.mark.parametrize("name", MENDED)
def test_lower_bounds_lie_above_published_flaws(name):
    first = tuple(map(int, MENDED[name].split(".")))
    texts = {file: (ROOT / file).read_text() for file in ("setup.py", "pyproject.toml")}
    texts |= {str(file): file.read_text() for file in (ROOT / "launch").glob("requirements*.txt")}
    found = {file: versions(text, name) for file, text in texts.items()}
    assert found["setup.py"]
    assert {file: each for file, each in found.items() if any(version < first for version in each)} == {}
