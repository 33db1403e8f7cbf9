"""A directory's description of itself: a JSON file that names its format and the format's version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from etils import epath

from var_jax.errors import InputError
from var_jax.formats.small_files import AGAIN, read_json


def read_description(
    file: Path | epath.Path, kind: str, format_name: str, version: int, remedy: str = AGAIN
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
    content = read_json(file, kind, remedy)
    if content.get("format") != format_name:
        raise InputError(f"{file}: is not {kind} of a {format_name}; check the path")
    if content.get("format_version") != version:
        found = content.get("format_version")
        raise InputError(f"{file}: format version {found}, this var_jax reads version {version}; update it")
    return content
