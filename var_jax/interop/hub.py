"""Fetches published checkpoints from the Hugging Face hub (extra `hub`) and verifies the files.

A branch name is resolved to a commit once, both files of a pair are taken at that commit, and each
file's size and sha256 must match the hub's statement. The commit is recorded in the model directory,
so that `--revision` can fetch the same pair again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from var_jax.errors import InputError
from var_jax.pyramid import PUBLISHED_SIDES, Pyramid

REPOSITORY = "FoundationVision/var"
TOKENIZER_FILE = "vae_ch160v4096z32.pth"
# Published name -> (the transformer's file, side of its pictures).
PUBLISHED: dict[str, tuple[str, int]] = {
    "d16": ("var_d16.pth", 256),
    "d20": ("var_d20.pth", 256),
    "d24": ("var_d24.pth", 256),
    "d30": ("var_d30.pth", 256),
    "d36-s": ("var_d36.pth", 512),
}


class Fetched(NamedTuple):
    """A published pair on the local disk.

    Attributes:
      tokenizer: path of the tokenizer's file.
      transformer: path of the transformer's file.
      pyramid: the pyramid both were trained for.
      revision: the hub's commit of the files.
    """

    tokenizer: Path
    transformer: Path
    pyramid: Pyramid
    revision: str


def fetch_published(name: str, revision: str = "main") -> Fetched:
    """Downloads (or finds in the hub's cache) a published tokenizer and transformer, and verifies both.

    Args:
      name: "d16", "d20", "d24", "d30" or "d36-s".
      revision: a commit, tag or branch of the hub's repository.

    Raises:
      InputError: for an unknown name, if the extra is missing, the hub cannot be reached, or a file
        does not match the hub's statement.
    """
    if name not in PUBLISHED:
        raise InputError(f"published model '{name}': known are {', '.join(PUBLISHED)}")
    try:
        import huggingface_hub as hub
    except ImportError:
        raise InputError(
            "fetching published checkpoints needs the hub extra: pip install 'var-jax[hub]', "
            "or download the files and give --tokenizer and --transformer"
        ) from None
    file, size = PUBLISHED[name]
    try:
        info = hub.HfApi().model_info(REPOSITORY, revision=revision, files_metadata=True)
        paths = [Path(hub.hf_hub_download(REPOSITORY, part, revision=info.sha)) for part in (TOKENIZER_FILE, file)]
    except Exception as error:  # the hub's errors without a network have no common base
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{REPOSITORY} at '{revision}' cannot be fetched from the hub ({reason})") from None
    stated = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    for path, part in zip(paths, (TOKENIZER_FILE, file), strict=True):
        _verify(path, stated.get(part), part)
    return Fetched(*paths, Pyramid(PUBLISHED_SIDES[size]), info.sha)


def _verify(path: Path, stated: Any, name: str) -> None:
    path = path.resolve()  # a link in the hub's cache: deleting the link alone would bring the same bytes back
    if stated is None or stated.lfs is None:
        raise InputError(f"{name}: the hub states no checksum for it at this revision, so it is refused")
    if path.stat().st_size != stated.lfs.size:
        raise InputError(
            f"{path}: has {path.stat().st_size} bytes, the hub states {stated.lfs.size}; delete it and retry"
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != stated.lfs.sha256:
        raise InputError(f"{path}: sha256 is {found}, the hub states {stated.lfs.sha256}; delete it and retry")
