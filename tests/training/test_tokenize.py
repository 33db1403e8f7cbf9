"""Stored tokens: made the same by any number of processes and through any break, trained from like pictures."""

from __future__ import annotations

import json
import os
import shutil

import jax
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from PIL import Image

from tests.models.golden_models import random_params
from tests.training import tiny
from tests.training.runs import StopAt, equal, last_state
from var_jax.cli.main import main
from var_jax.data.pipeline import epoch_batches, train_batches
from var_jax.data.sources import Spread, make_source
from var_jax.data.token_store import TokenStore, token_dtype
from var_jax.errors import InputError
from var_jax.model_directory import Model, save_model
from var_jax.models.shapes import tokenizer_shapes
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.training import tokenize as module
from var_jax.training.loop import FINISHED, PREEMPTED, Run, train
from var_jax.training.tokenize import Cuts, tokenize
from var_jax.training_directory import read_any_model

pytestmark = pytest.mark.usefixtures("one_device")

PICTURES = {"size": 12, "count": 30}
CUTS = Cuts(count=3, enlarge=1.25, flip=True)
DATA = {"options": PICTURES, "enlarge": 1.25, "flip": True}


def make(tokenizer, out, cuts=CUTS, **options):
    given = {"pictures_per_file": 8, "batch_size": 4, "say": lambda text: None} | options
    return tokenize(tokenizer, "shapes", PICTURES, cuts, out, **given)


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def root(tiny_run, tmp_path_factory):
    """A tokenizer's run and a store made by it."""
    root = tmp_path_factory.mktemp("tokens")
    shutil.copytree(tiny_run / "tokenizer", root / "tokenizer")
    assert make(root / "tokenizer", root / "store")
    return root


def from_store(root, **changes):
    return tiny.transformer(root / "tokenizer", **{"data": {"store": str(root / "store")}, "steps": 8} | changes)


def test_a_store_holds_the_tokens_of_the_crops_that_training_sees(root):
    store, pictures = TokenStore("train", root / "store"), make_source("shapes", "train", **PICTURES)
    encode = module._encoder(read_any_model(root / "tokenizer"))
    batches = train_batches(pictures, 8, 10, 0, enlarge=1.25, flip=True)
    stored = train_batches(store, 8, 10, 0)
    seen = set()
    for _ in range(9):  # three epochs
        batch, other = next(batches), next(stored)
        for name in ("labels", "indices"):
            np.testing.assert_array_equal(batch[name], other[name])
        np.testing.assert_array_equal(encode(batch["images"]), other["tokens"])
        assert other["tokens"].dtype == np.int32
        seen |= {(int(i), bytes(t)) for i, t in zip(other["indices"], other["tokens"], strict=True)}
    assert len(seen) > 40  # crops of a picture differ
    again = next(stored)
    assert {(int(i), bytes(t)) for i, t in zip(again["indices"], again["tokens"], strict=True)} <= seen
    batches.close()
    stored.close()


def test_the_index_says_what_the_store_was_made_of(root):
    index = json.loads((root / "store" / "index.json").read_text())
    config = read_any_model(root / "tokenizer")
    assert index["tokenizer"] == {
        "fingerprint": config.fingerprints["tokenizer"],
        "pyramid": [1, 2, 4],
        "codebook_size": 16,
    }
    assert index["crops"] == {"count": 3, "size": 8, "enlarge": 1.25, "flip": True, "seed": 0}
    assert index["dtype"] == "uint8"
    assert index["class_names"] == list(make_source("shapes", "train", **PICTURES).class_names)
    assert [shard["records"] for shard in index["splits"]["train"]["shards"]] == [24, 24, 24, 18]
    assert [shard["records"] for shard in index["splits"]["validation"]["shards"]] == [8, 8, 8, 6]
    assert all(len(shard["sha256"]) == 64 for part in index["splits"].values() for shard in part["shards"])
    assert [token_dtype(size) for size in (256, 257, 4096, 70_000)] == ["uint8", "uint16", "uint16", "uint32"]


def test_processes_share_the_files(root, tmp_path):
    assert not make(root / "tokenizer", tmp_path / "store", process_index=1, process_count=3)
    assert not make(root / "tokenizer", tmp_path / "store", process_index=2, process_count=3)
    with pytest.raises(InputError, match="the store is not finished"):
        TokenStore("train", tmp_path / "store")
    assert make(root / "tokenizer", tmp_path / "store", process_index=0, process_count=3)
    assert content(tmp_path / "store") == content(root / "store")


def test_a_broken_off_store_is_gone_on_with(root, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(text):
        if text.startswith("train-00001"):
            raise Killed

    with pytest.raises(Killed):
        make(root / "tokenizer", tmp_path / "store", say=killed)
    (tmp_path / "store" / "train-00002-of-00004.array_record.partial").write_bytes(b"half")
    made = []
    assert make(root / "tokenizer", tmp_path / "store", say=made.append)
    assert not any(line.startswith(("train-00000", "train-00001")) for line in made)
    assert content(tmp_path / "store") == content(root / "store")


def test_same_crops_same_loss(root, tmp_path):
    """The first three epochs from pictures, and from a store of three crops a picture."""
    losses = []
    for name, data in (("pictures", DATA), ("store", {"store": str(root / "store")})):
        run = Run(tiny.transformer(root / "tokenizer", data=data), epath.Path(tmp_path / name), jax.devices()[:1])
        losses.append([])
        batches = run._batches(0)
        with jax.set_mesh(run.mesh):
            for _ in range(5):
                run.state, metrics = run.program(run.state, run.fixed, run._put(next(batches)))
                losses[-1].append(float(metrics["loss"]))
        losses[-1].append(run.evaluate(5)["loss"])
        run.close()
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-6)


def test_stopped_and_resumed_from_a_store_is_the_unbroken_run(root, tmp_path, monkeypatch):
    config = from_store(root)
    assert train(config, str(tmp_path / "whole")) == FINISHED
    with monkeypatch.context() as patch:
        StopAt(patch, 5)
        assert train(config, str(tmp_path / "broken")) == PREEMPTED
    assert train(config, str(tmp_path / "broken")) == FINISHED
    equal(last_state(tmp_path / "broken"), last_state(tmp_path / "whole"))
    assert read_any_model(tmp_path / "whole").class_names == TokenStore("train", root / "store").class_names


def test_another_tokenizer_s_store_is_refused(root, tmp_path):
    config = TokenizerConfig.from_fields(**tiny.tokenizer().model)
    params, counts = random_params(tokenizer_shapes(config)), np.zeros((3, 16), np.float32)
    save_model(tmp_path / "other", Model(config, params, counts))
    config = tiny.transformer(tmp_path / "other", data={"store": str(root / "store")})
    with pytest.raises(InputError, match=r"store: another tokenizer made these tokens .*/other is") as refused:
        train(config, str(tmp_path / "run"))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()
    before = content(root / "store")
    with pytest.raises(InputError, match="holds a store made with another tokenizer: choose another --out"):
        make(tmp_path / "other", root / "store")
    with pytest.raises(InputError, match="made with another crops"):
        make(root / "tokenizer", root / "store", Cuts(2))
    assert content(root / "store") == before


def test_a_tokenizer_does_not_learn_from_tokens(root, tmp_path):
    with pytest.raises(InputError, match="a tokenizer learns from pictures"):
        train(tiny.tokenizer(data={"store": str(root / "store")}), str(tmp_path / "run"))


def test_a_view_of_a_store_is_a_store(root):
    view = Spread(make_source("tokens", "validation", path=root / "store"), 4)
    assert (view.holds, len(view)) == ("tokens", 4)


def test_the_command(root, tmp_path, capsys):
    arguments = ["tokenize", "--model", str(root / "tokenizer"), "--kind", "shapes", "--size", "12", "--count", "30"]
    arguments += ["--crops", "3", "--flips", "--enlarge", "1.25", "--pictures-per-file", "8", "--batch", "4"]
    assert main([*arguments, "--out", str(tmp_path / "store")]) == 0
    assert "verified" in capsys.readouterr().out
    assert content(tmp_path / "store") == content(root / "store")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").touch()
    assert main([*arguments, "--out", str(tmp_path / "taken")]) == 2
    assert "is not empty and holds no store of tokens" in capsys.readouterr().err
    assert main(["data", "check", "--kind", "tokens", "--path", str(tmp_path / "store"), "--read"]) == 0
    assert "train: 30 pictures in 10 classes" in capsys.readouterr().out


# Damage to a store.


@pytest.fixture
def copy(root, tmp_path):
    """A copy of the store, and one of its files."""
    shutil.copytree(root / "store", tmp_path / "store")
    return tmp_path / "store", tmp_path / "store" / "train-00001-of-00004.array_record"


def repaired(root, store):
    assert make(root / "tokenizer", store)
    return content(store) == content(root / "store")


def test_flipped_bits_are_found_and_made_anew(root, copy, tmp_path):
    store, file = copy
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    file.write_bytes(damaged)
    with pytest.raises(InputError, match=f"{file}: a record does not match its checksum .*'var-jax tokenize'") as error:
        train(tiny.transformer(root / "tokenizer", data={"store": str(store)}, steps=8), str(tmp_path / "run"))
    assert "\n" not in str(error.value)
    assert repaired(root, store)


ABSURD = (None, True, "xx", -1, 0.5, 10**30, [], [1], {}, "../a")


def test_damaged_indexes_are_refused(root, copy):
    """Every field of an index takes other values, or is gone; what was lowered or swapped is seen, too."""
    file = copy[0] / "index.json"
    whole = json.loads(file.read_text())

    def refused(index, needle):
        file.write_text(json.dumps(index))
        with pytest.raises(InputError, match=f"{copy[0]}.*: {needle}") as caught:
            [TokenStore(split, copy[0]) for split in ("train", "validation")]
        assert "\n" not in str(caught.value)

    def places(node, path=()):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield (*path, key)
            if isinstance(value, (dict, list)):
                yield from places(value, (*path, key))

    for path in list(places(whole)):
        for odd in ("gone", *ABSURD):
            index = json.loads(json.dumps(whole))
            node = index
            for key in path[:-1]:
                node = node[key]
            old = node.pop(path[-1])
            if odd != "gone" and isinstance(node, dict):
                node[path[-1]] = odd
            if (path[-1] == "sha256" and type(odd) is str) or odd == old:
                continue
            refused(index, "")
    for split, crops in (("train", 3), ("validation", 1)):
        index = json.loads(json.dumps(whole))
        part = index["splits"][split]
        part["pictures"] -= 6
        part["shards"].pop()
        refused(index, f"'{split}' has 24 pictures and {crops} crops, its files have 24")
        part["crops"] += 1
    refused(whole | {"class_names": whole["class_names"][::-1]}, "'class_names' differs from settings.json beside it")
    file.write_bytes(b"[" * 100_000)
    with pytest.raises(InputError, match=f"{file}: the index cannot be read as JSON .*remove it, and run the same"):
        TokenStore("train", copy[0])
    (copy[0] / "settings.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="settings.json: the settings of the store cannot be read as JSON"):
        make(root / "tokenizer", copy[0])


@pytest.mark.parametrize("kind", ["short", "missing"])
def test_a_store_cut_short_is_refused_and_made_anew(root, copy, kind):
    store, file = copy
    if kind == "short":
        os.truncate(file, file.stat().st_size - 100)
    else:
        file.unlink()
    said = "has .* bytes, its store's index says .*: cut short" if kind == "short" else "is missing from its store"
    with pytest.raises(InputError, match=said):
        TokenStore("train", store)
    assert repaired(root, store)


def test_damage_before_the_index_is_found_by_the_verification(root, copy):
    store, file = copy
    (store / "index.json").unlink()
    os.truncate(file, file.stat().st_size - 100)
    with pytest.raises(InputError, match="does not match its checksum"):
        make(root / "tokenizer", store)
    assert repaired(root, store)


def test_a_full_disk_loses_one_file_s_work(root, tmp_path, monkeypatch):
    def writer(path, options):
        return ArrayRecordWriter("/dev/full" if "train-00002" in path else path, options)

    monkeypatch.setattr(module, "ArrayRecordWriter", writer)
    with pytest.raises(InputError, match="train-00002-of-00004.array_record: cannot be written .*No space left"):
        make(root / "tokenizer", tmp_path / "store")
    monkeypatch.undo()
    assert (tmp_path / "store" / "train-00001-of-00004.array_record").exists()
    assert repaired(root, tmp_path / "store")


def test_damaged_pictures_of_a_store(root, tmp_path):
    """Another picture's tokens in training, a gap in validation: what a run on the pictures sees."""
    rng = np.random.default_rng(0)
    for i in range(40):
        file = tmp_path / "pictures" / f"class{i % 2}" / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(file)
    options = {"path": str(tmp_path / "pictures"), "validation_share": 0.3}
    sources = {split: make_source("folder", split, **options) for split in ("train", "validation")}
    for source in sources.values():
        source.file(2).write_bytes(b"")
    (tmp_path / "pictures" / "class0" / "1.heic").write_bytes(b"?")
    lines: list[str] = []
    given = {"bad_share": 0.2, "batch_size": 4, "say": lines.append}
    assert tokenize(root / "tokenizer", "folder", options, Cuts(2), tmp_path / "store", **given)
    assert len((tmp_path / "store" / "bad_pictures.txt").read_text().splitlines()) == 2
    assert lines[0] == f"{tmp_path / 'pictures'}: not taken, files of other kinds: 1 (1 .heic)"
    stores = {split: TokenStore(split, tmp_path / "store") for split in sources}
    np.testing.assert_array_equal(stores["train"].crop(2, 1)[0], stores["train"].crop(3, 1)[0])
    (batch,) = epoch_batches(stores["validation"], 8, len(stores["validation"]))
    np.testing.assert_array_equal(np.flatnonzero(batch["mask"] == 0), [2])
    with pytest.raises(InputError, match="more than the share of 0.01"):
        tokenize(root / "tokenizer", "folder", options, Cuts(2), tmp_path / "other", **given | {"bad_share": 0.01})
