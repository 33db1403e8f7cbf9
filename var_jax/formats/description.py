"""What a directory says of itself: a JSON file that names its format and the format's version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from etils import epath

from var_jax.errors import InputError


def read_description(
    file: Path | epath.Path, what: str, format_name: str, version: int, remedy: str = ""
) -> dict[str, Any]:
    """The content of `file`.

    Args:
      file: exists.
      what: it is, for messages: "the config".
      format_name, version: that its "format" and "format_version" must have.
      remedy: added where it is damaged, a phrase.

    Raises:
      InputError: if it cannot be read, or is of another format or version.
    """
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read as JSON ({error}){remedy and f'; {remedy}'}") from None
    if not isinstance(content, dict) or content.get("format") != format_name:
        raise InputError(f"{file}: is not {what} of a {format_name}")
    if content.get("format_version") != version:
        found = content.get("format_version")
        raise InputError(f"{file}: format version {found}, this var_jax reads version {version}; update it")
    return content
