"""Checksums of a folder's files, written when it is whole, so that damage is noticed before it is used."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
from pathlib import Path

from var_jax.errors import InputError
from var_jax.formats.small_files import read_json

SEAL_FILE = "checksums.json"


def sha256(file: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, in hex."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Writes size and checksum of every file below `folder` into it."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != SEAL_FILE]
    with concurrent.futures.ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
        sums = list(pool.map(sha256, files))
    lines = {
        str(file.relative_to(folder)): [file.stat().st_size, digest] for file, digest in zip(files, sums, strict=True)
    }
    temporary = folder / f"{SEAL_FILE}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(lines, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / SEAL_FILE)


def is_sealed(folder: Path) -> bool:
    """Whether a folder has checksums, whole or not."""
    return (folder / SEAL_FILE).exists()


def damage(folder: Path, part: str = "") -> str | None:
    """A sentence on the damage of a sealed folder, or of its files that begin with `part`; None if whole."""
    if not is_sealed(folder):
        return f"has no {SEAL_FILE}"
    try:
        lines = read_json(folder / SEAL_FILE, "the checksums of a folder")
        expected = {name: (size, digest) for name, (size, digest) in lines.items() if name.startswith(part)}
    except (InputError, TypeError, ValueError) as error:
        return f"{SEAL_FILE} cannot be read ({error})"
    if not lines:
        return f"{SEAL_FILE} names no file"

    def wrong(name: str) -> str | None:
        size, digest = expected[name]
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes of {size}"
        return None if sha256(file) == digest else f"{name} does not match its checksum"

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return next((found for found in pool.map(wrong, sorted(expected)) if found), None)
