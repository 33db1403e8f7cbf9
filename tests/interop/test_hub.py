"""Fetching published pairs, from a hub that is a folder."""

from __future__ import annotations

import sys

import pytest

from tests.interop.fake_hub import COMMIT, FakeHub
from var_jax.errors import InputError
from var_jax.interop import hub
from var_jax.pyramid import PUBLISHED_SIDES, Pyramid


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "blobs").mkdir()
    for name in (hub.TOKENIZER_FILE, *(file for file, _ in hub.PUBLISHED.values())):
        (tmp_path / "blobs" / name).write_bytes(f"content of {name}".encode())
    fake = FakeHub(tmp_path / "blobs")
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return fake


def refusal(*arguments):
    with pytest.raises(InputError) as raised:
        hub.fetch_published(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", hub.PUBLISHED)
def test_both_files_come_from_the_commit_that_the_branch_names(fake, name):
    fetched = hub.fetch_published(name)
    file, size = hub.PUBLISHED[name]
    assert fetched.revision == COMMIT
    assert fake.asked == [(hub.REPOSITORY, hub.TOKENIZER_FILE, COMMIT), (hub.REPOSITORY, file, COMMIT)]
    assert fetched.tokenizer.read_text() == f"content of {hub.TOKENIZER_FILE}"
    assert fetched.transformer.read_text() == f"content of {file}"
    assert fetched.pyramid == Pyramid(PUBLISHED_SIDES[size])


def test_a_commit_can_be_asked_for(fake):
    assert hub.fetch_published("d16", COMMIT).revision == COMMIT
    assert "at 'v9' cannot be fetched from the hub (404 Client Error. Revision Not" in refusal("d16", "v9")


def test_an_unknown_name_lists_the_known_ones(fake):
    assert refusal("d17") == "published model 'd17': known are d16, d20, d24, d30, d36-s"


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    assert "pip install 'var-jax[hub]'" in refusal("d16")


@pytest.mark.parametrize("error", [OSError("no route to host"), ValueError("bad"), RuntimeError("")])
@pytest.mark.parametrize("broken", ["info", "download"])
def test_a_hub_out_of_reach(fake, monkeypatch, error, broken):
    """Whatever the hub's transport raises: without a network it is no OSError."""

    def fail(*_, **__):
        raise error

    if broken == "info":
        monkeypatch.setattr(fake.HfApi, "model_info", fail)
    else:
        monkeypatch.setattr(fake, "hf_hub_download", fail)
    reason = str(error) or "RuntimeError"
    assert refusal("d16") == f"{hub.REPOSITORY} at 'main' cannot be fetched from the hub ({reason})"


@pytest.mark.parametrize("file", [hub.TOKENIZER_FILE, "var_d20.pth"])
def test_a_file_that_is_not_what_the_hub_states(fake, file):
    blob = fake.folder / file  # what has to be deleted: a deleted link would be made again
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-1])
    assert refusal("d20") == (f"{blob}: has {len(whole) - 1} bytes, the hub states {len(whole)}; delete it and retry")
    blob.write_bytes(whole[:-1] + b"!")
    message = refusal("d20")
    assert message.startswith(f"{blob}: sha256 is ")
    assert message.endswith(f"the hub states {fake.stated[file].sha256}; delete it and retry")


def test_a_file_of_which_the_hub_states_nothing(fake):
    stated = fake.stated.pop("var_d16.pth")
    assert refusal("d16").startswith("var_d16.pth: the hub states no checksum")
    fake.stated["var_d16.pth"] = None
    assert refusal("d16").startswith("var_d16.pth: the hub states no checksum")
    fake.stated["var_d16.pth"] = stated
    hub.fetch_published("d16")
