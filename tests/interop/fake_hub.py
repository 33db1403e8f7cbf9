"""A stand-in for `huggingface_hub`: a folder of files, what the hub states of them, and what was asked."""

from __future__ import annotations

import hashlib
import types
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(types.ModuleType):
    """Put it into `sys.modules["huggingface_hub"]`; files are taken from `folder`.

    Attributes:
      branches: revision -> commit; another revision is an error, as on the hub.
      stated: file name -> what the hub states of it, by the attributes of its own answer.
      asked: (repository, file, revision) of every download.
    """

    def __init__(self, folder: Path):
        super().__init__("huggingface_hub")
        self.folder, self.branches = folder, {"main": COMMIT, COMMIT: COMMIT}
        self.asked: list[tuple[str, str, str]] = []
        self.stated = {
            file.name: types.SimpleNamespace(
                size=file.stat().st_size, sha256=hashlib.sha256(file.read_bytes()).hexdigest()
            )
            for file in folder.iterdir()
        }
        hub = self

        class HfApi:
            def model_info(self, repository: str, *, revision: str, files_metadata: bool) -> types.SimpleNamespace:
                assert files_metadata  # or the hub states no checksums
                if revision not in hub.branches:
                    raise OSError(f"404 Client Error.\n\nRevision Not Found for {repository}: {revision}.")
                siblings = [types.SimpleNamespace(rfilename=name, lfs=lfs) for name, lfs in hub.stated.items()]
                return types.SimpleNamespace(sha=hub.branches[revision], siblings=siblings)

        self.HfApi = HfApi

    def hf_hub_download(self, repository: str, file: str, *, revision: str) -> str:
        """The path of a link into a cache, as the hub gives it."""
        self.asked.append((repository, file, revision))
        link = self.folder.parent / "snapshot" / file
        link.parent.mkdir(exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(self.folder / file)
        return str(link)
