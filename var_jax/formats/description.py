"""A directory's description of itself: a JSON file that names its format and the format's version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from etils import epath

from var_jax.errors import InputError


def read_description(
    file: Path | epath.Path, kind: str, format_name: str, version: int, remedy: str = ""
) -> dict[str, Any]:
    """Reads the content of `file`.

    Args:
      file: an existing one.
      kind: of file, for messages: "the config".
      format_name, version: that its "format" and "format_version" must have.
      remedy: for a damaged file, a phrase.

    Raises:
      InputError: if it cannot be read, or is of another format or version.
    """
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read as JSON ({error}){remedy and f'; {remedy}'}") from None
    if not isinstance(content, dict) or content.get("format") != format_name:
        raise InputError(f"{file}: is not {kind} of a {format_name}; check the path")
    if content.get("format_version") != version:
        found = content.get("format_version")
        raise InputError(f"{file}: format version {found}, this var_jax reads version {version}; update it")
    return content
