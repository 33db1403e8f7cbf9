"""Addresses that cannot be used are one clear line."""

from __future__ import annotations

import os

import pytest
from etils import epath

from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_directory, atomic_file
from var_jax.formats.bucket import open_folder


def test_local_paths_are_themselves(tmp_path):
    assert open_folder(tmp_path / "new") == epath.Path(tmp_path / "new")
    assert open_folder("runs/a") == epath.Path(os.path.abspath("runs/a"))


@pytest.mark.parametrize("address", ["s3://bucket/run", "http://host/run"])
def test_other_addresses_are_refused(address):
    with pytest.raises(InputError, match=f"{address}: .*only gs://BUCKET/FOLDER"):
        open_folder(address)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("Please install gcsfs"), "gs://bucket/run: a bucket needs gcsfs; install it: pip install"),
        (
            OSError("Forbidden: gs://bucket\nno access"),
            r"cannot be reached \(OSError: Forbidden: gs://bucket no access",
        ),
    ],
)
def test_a_bucket_out_of_reach(monkeypatch, error, message):
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(type(epath.Path("gs://bucket")), "exists", fail)
    with pytest.raises(InputError, match=message):
        open_folder("gs://bucket/run")


@pytest.mark.parametrize("atomic", [atomic_file, atomic_directory])
def test_what_is_written_locally_makes_no_folder_named_like_an_address(tmp_path, monkeypatch, atomic):
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(InputError, match="gs://bucket/out: this is written to local paths only"),
        atomic("gs://bucket/out"),
    ):
        pytest.fail("the body must not run")
    assert not list(tmp_path.iterdir())
