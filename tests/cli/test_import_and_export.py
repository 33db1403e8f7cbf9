"""`var-jax import` and `export`: there and back, published pairs, and one line for every wrong input."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import zipfile

import numpy as np
import pytest

from tests.cli.conftest import run
from tests.formats.samples import attacks, only_files_in
from tests.interop.checkpoints import (
    assert_bitwise,
    drawn_model,
    nested,
    tokenizer_config,
    tokenizer_tensors,
    transformer_config,
    transformer_tensors,
)
from tests.interop.fake_hub import COMMIT, FakeHub
from var_jax.formats.tensors import read_tensors, write_tensors
from var_jax.interop.hub import TOKENIZER_FILE
from var_jax.model_directory import read_model
from var_jax.pyramid import PUBLISHED_SIDES, Pyramid


def fingerprints(folder):
    return json.loads((folder / "config.json").read_text())["fingerprints"]


def test_import_says_what_it_found(pair, tmp_path, capsys):
    files = ["--tokenizer", pair.tokenizer, "--transformer", pair.transformer]
    assert run("import", *files, "--pyramid", "1,2,3", "--out", tmp_path / "model") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines() == [
        "tokenizer: 16 codes of width 4, 6 px, pyramid 1,2,3",
        "transformer: depth 2, width 16, 2 heads, 5 classes",
        f"wrote {tmp_path / 'model'}",
    ]
    assert read_model(tmp_path / "model").source == {"tokenizer": "vae.pth", "transformer": "var.safetensors"}
    assert fingerprints(tmp_path / "model") == fingerprints(pair.model)


@pytest.mark.parametrize("suffixes", [(".pth", ".safetensors"), (".safetensors", ".pt")])
def test_export_and_import_change_nothing(pair, tmp_path, suffixes):
    files = [tmp_path / f"vae{suffixes[0]}", tmp_path / "new" / f"var{suffixes[1]}"]
    options = ["--tokenizer", files[0], "--transformer", files[1]]
    assert run("export", "--model", pair.model, *options) == 0
    assert_bitwise(read_tensors(files[0]), read_tensors(pair.tokenizer))
    assert_bitwise(read_tensors(files[1]), read_tensors(pair.transformer))
    assert run("import", *options, "--pyramid", "1 2 3", "--out", tmp_path / "model") == 0
    assert fingerprints(tmp_path / "model") == fingerprints(pair.model)


def test_one_network_can_be_exported_alone(pair, tmp_path):
    for option, theirs in (("--tokenizer", pair.tokenizer), ("--transformer", pair.transformer)):
        assert run("export", "--model", pair.model, option, tmp_path / "a.pth") == 0
        assert_bitwise(read_tensors(tmp_path / "a.pth"), read_tensors(theirs))
    assert only_files_in(tmp_path) == ["a.pth"]


def test_both_from_one_training_checkpoint(pair, tmp_path):
    tensors = nested("trainer.vae_local.", read_tensors(pair.tokenizer))
    tensors |= nested("trainer.var_wo_ddp.", read_tensors(pair.transformer))
    write_tensors(tmp_path / "last.pth", tensors, {})
    both = ["--tokenizer", tmp_path / "last.pth", "--transformer", tmp_path / "last.pth"]
    assert run("import", *both, "--pyramid", "1,2,3", "--out", tmp_path / "model") == 0
    assert fingerprints(tmp_path / "model") == fingerprints(pair.model)


def test_one_of_several_models_in_a_file_is_chosen(pair, tmp_path, refused):
    """{"model": ..., "ema": ...}, as trainings write it."""
    tensors, other = read_tensors(pair.transformer), drawn_model(seed=5)
    both = nested("model.", transformer_tensors(other)) | nested("ema.", tensors)
    write_tensors(tmp_path / "var.pth", both, {})
    files = ["--tokenizer", pair.tokenizer, "--transformer", tmp_path / "var.pth", "--pyramid", "1,2,3"]
    line = refused("import", *files, "--out", tmp_path / "model")
    assert "holds more than one transformer (under 'ema.', 'model.'): choose one, like --prefix ema" in line
    assert "--prefix teacher: no tensor's name begins so" in refused(
        "import", *files, "--prefix", "teacher", "--out", tmp_path / "model"
    )
    for number, prefix in enumerate(("ema", "ema.")):
        assert run("import", *files, "--prefix", prefix, "--out", tmp_path / f"model{number}") == 0
        assert fingerprints(tmp_path / f"model{number}") == fingerprints(pair.model)


def test_a_model_in_several_files(pair, tmp_path, refused):
    """An index and its parts: read from the index or the folder; a part alone, or a part that lacks, is named."""
    tensors, folder = read_tensors(pair.transformer), tmp_path / "parts"
    folder.mkdir()
    names, places = sorted(tensors), {}
    for number, some in enumerate((names[::2], names[1::2]), 1):
        places |= dict.fromkeys(some, f"model-{number:05}-of-00002.safetensors")
        write_tensors(folder / places[some[0]], {name: tensors[name] for name in some}, {})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))

    def files(transformer):
        return [
            "--tokenizer",
            pair.tokenizer,
            "--transformer",
            transformer,
            "--pyramid",
            "1,2,3",
            "--out",
            tmp_path / "m",
        ]

    for given in (folder, index):
        assert run("import", *files(given)) == 0
        assert fingerprints(tmp_path / "m") == fingerprints(pair.model)
        shutil.rmtree(tmp_path / "m")
    first = folder / places[names[0]]
    assert f"{first}: is part 1 of 2 of a model; give the folder of all parts" in refused("import", *files(first))
    for content, needle in (
        ({"weight_map": places | {names[0]: "../../etc/passwd"}}, "something else than names of files beside it"),
        ({"weight_map": places | {names[0]: 3}}, "something else than names of files beside it"),
        ({"weight_map": [1]}, "'weight_map' is [1], expected an object"),
        ({}, "has no 'weight_map'"),
        (
            {"weight_map": places | {"more": places[names[0]]}},
            "holds other tensors than model.safetensors.index.json says",
        ),
    ):
        index.write_text(json.dumps(content))
        assert needle in refused("import", *files(folder))
    index.write_text(json.dumps({"weight_map": places}))
    first.unlink()
    assert f"{first}: no such file" in refused("import", *files(folder))
    index.unlink()
    assert "this is a folder with 0 files *.index.json" in refused("import", *files(folder))


@pytest.mark.parametrize("which", ["tokenizer", "transformer"])
@pytest.mark.parametrize("odd", [np.nan, np.inf, 1e300])
def test_weights_that_are_not_finite_are_refused_by_name(pair, tmp_path, refused, which, odd):
    tensors = {name: np.array(array) for name, array in read_tensors(getattr(pair, which)).items()}
    name = "decoder.conv_out.bias" if which == "tokenizer" else "blocks.1.ffn.fc1.weight"
    tensors[name] = tensors[name].astype(np.float64)
    tensors[name].flat[3 % tensors[name].size] = odd
    write_tensors(tmp_path / "odd.pth", tensors, {})
    files = {"tokenizer": pair.tokenizer, "transformer": pair.transformer, which: tmp_path / "odd.pth"}
    options = [word for name, file in files.items() for word in (f"--{name}", file)]
    line = refused("import", *options, "--pyramid", "1,2,3", "--out", tmp_path / "model")
    assert f"odd.pth: tensor '{name}' holds NaN or infinity" in line


def test_lookup_and_heads_are_what_files_do_not_tell(pair, tmp_path):
    plain = transformer_config(qk_norm=False, num_heads=4)
    write_tensors(tmp_path / "var.pth", transformer_tensors(drawn_model(transformer=plain)), {})
    files = ["--tokenizer", pair.tokenizer, "--transformer", tmp_path / "var.pth", "--pyramid", "1,2,3"]
    assert run("import", *files, "--lookup", "cosine", "--heads", 4, "--out", tmp_path / "model") == 0
    model = read_model(tmp_path / "model")
    assert (model.tokenizer_config.quantizer.lookup, model.transformer_config.num_heads) == ("cosine", 4)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A hub with a pair for the published pyramid, of tiny widths."""
    folder = tmp_path_factory.mktemp("hub") / "blobs"
    folder.mkdir()
    pyramid = Pyramid(PUBLISHED_SIDES[256])
    tokenizer = tokenizer_config(pyramid=pyramid, channel_multipliers=(1,))
    model = drawn_model(tokenizer, transformer_config(pyramid=pyramid, depth=1))
    write_tensors(folder / TOKENIZER_FILE, tokenizer_tensors(model), {})
    write_tensors(folder / "var_d16.pth", transformer_tensors(model), {})
    return FakeHub(folder)


def test_a_published_pair(published, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", published)
    assert run("import", "--published", "d16", "--out", tmp_path / "d16") == 0
    model = read_model(tmp_path / "d16")
    assert model.tokenizer_config.pyramid == Pyramid(PUBLISHED_SIDES[256])
    assert model.source == {"tokenizer": f"{TOKENIZER_FILE} at {COMMIT}", "transformer": f"var_d16.pth at {COMMIT}"}
    assert run("import", "--published", "d16", "--revision", COMMIT, "--out", tmp_path / "same") == 0
    assert (tmp_path / "same" / "config.json").read_bytes() == (tmp_path / "d16" / "config.json").read_bytes()


def test_a_published_pair_that_cannot_be_had(published, tmp_path, monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "huggingface_hub", published)
    out = ["--out", tmp_path / "model"]
    assert "invalid choice: 'd99'" in refused("import", "--published", "d99", *out)
    assert "at 'v9' cannot be fetched" in refused("import", "--published", "d16", "--revision", "v9", *out)
    assert "states no checksum" in refused("import", "--published", "d30", *_absent(published, monkeypatch), *out)
    for option, value in (("tokenizer", "a.pth"), ("transformer", "a.pth"), ("pyramid", "512"), ("heads", "4")):
        assert f"--{option} and --published" in refused("import", "--published", "d16", f"--{option}", value, *out)
    assert "--lookup and --published" in refused("import", "--published", "d16", "--lookup", "l2", *out)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'var-jax[hub]'" in refused("import", "--published", "d16", *out)


def _absent(published, monkeypatch):
    """Makes the hub give a file of which it states nothing; no arguments."""
    monkeypatch.setattr(published, "hf_hub_download", lambda *_, **__: str(published.folder / "var_d16.pth"))
    monkeypatch.setattr(published, "stated", {})
    return []


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ([], "--out"),
        (["--out", "{new}"], "give --tokenizer FILE"),
        (["--transformer", "{var}", "--out", "{new}"], "give --tokenizer FILE"),
        (["--tokenizer", "{vae}"], "required: --out"),
        (["--tokenizer", "{vae}", "--out", "{new}", "--colour"], "--colour"),
        (["--tokenizer", "{vae}", "--out", "{new}", "a\nb"], "a b"),
        (["--tokenizer", "{vae}", "--out", "{new}", "--revision", "main"], "--revision: belongs to --published"),
        (["--tokenizer", "{vae}", "--out", "{new}", "--lookup", "hamming"], "invalid choice: 'hamming'"),
        (["--tokenizer", "{missing}", "--out", "{new}"], "missing.pth: no such file"),
        (["--tokenizer", "{folder}", "--out", "{new}"], "expected a file, but this is a folder"),
        (["--tokenizer", "{vae}", "--transformer", "{missing}", "--out", "{new}"], "missing.pth: no such file"),
        (["--tokenizer", "{var}", "--out", "{new}"], "var.safetensors: not a checkpoint of a tokenizer"),
        (["--tokenizer", "{vae}", "--transformer", "{vae}", "--out", "{new}"], "vae.pth: not a checkpoint of a trans"),
        (["--tokenizer", "{vae}", "--out", "{new}", "--pyramid", "1,x"], "pyramid '1,x': expected 256, 512, 1024"),
        (["--tokenizer", "{vae}", "--out", "{new}", "--pyramid", ""], "pyramid '': expected 256, 512, 1024"),
        (["--tokenizer", "{vae}", "--out", "{new}", "--pyramid", "3,2"], "from coarse to fine and never shrink"),
        (["--tokenizer", "{vae}", "--out", "{new}", "--pyramid", "0,2"], "every side a positive integer"),
        (["--tokenizer", "{vae}", "--transformer", "{var}", "--out", "{new}"], "import both with --pyramid 1,2,3"),
        ([*("--tokenizer", "{vae}", "--transformer", "{var}", "--heads", "3"), "--out", "{new}"], "--pyramid 1,2,3"),
        (["--tokenizer", "{vae}", "--heads", "two", "--out", "{new}"], "invalid int value: 'two'"),
        (["--tokenizer", "{vae}", "--out", "{taken}"], "the folder exists and is not empty"),
        (["--tokenizer", "{vae}", "--out", "{file}"], "a file stands there"),
        (["--tokenizer", "{vae}", "--out", "{file}/deep/model"], "cannot be written"),
    ],
)
def test_what_cannot_be_imported(pair, tmp_path, refused, options, needle):
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    places = {"vae": pair.tokenizer, "var": pair.transformer, "missing": tmp_path / "missing.pth"}
    places |= {name: tmp_path / name for name in ("new", "folder", "taken", "file")}
    assert needle in refused("import", *(option.format(**places) for option in options))


def test_another_number_of_heads(pair, tmp_path, refused):
    files = ["--tokenizer", pair.tokenizer, "--transformer", pair.transformer, "--pyramid", "1,2,3"]
    line = refused("import", *files, "--heads", 3, "--out", tmp_path / "model")
    assert f"{pair.transformer}: has 2 heads, expected 3" in line


def test_damaged_and_foreign_files(pair, tmp_path, refused):
    whole = pair.tokenizer.read_bytes()
    with zipfile.ZipFile(tmp_path / "office.pth", "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    contents = {
        "cut.pth": whole[: len(whole) // 2],
        "half.safetensors": pair.transformer.read_bytes()[:-50],
        "empty.pth": b"",
        "text.pth": b"dear diary, this is no checkpoint",
        "picture.pth": pair.picture.read_bytes(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in (*contents, "office.pth"):
        line = refused("import", "--tokenizer", tmp_path / name, "--out", tmp_path / "model")
        assert f"{tmp_path / name}: " in line
    files = ["--tokenizer", pair.tokenizer, "--pyramid", "1,2,3", "--transformer", tmp_path / "half.safetensors"]
    assert "half.safetensors: not a whole" in refused("import", *files, "--out", tmp_path / "model")


def test_a_pickle_with_code_in_it(pair, tmp_path, refused):
    """What would run is named, and does not run."""
    marker = tmp_path / "marker"
    for number, (name, attack) in enumerate(attacks(marker)):
        for kind in ("tokenizer", "transformer"):
            path = tmp_path / f"{kind}_{number}.pth"
            path.write_bytes(pickle.dumps({"quantize.embedding.weight": attack}, 2))
            files = {"tokenizer": pair.tokenizer, "transformer": pair.transformer, kind: path}
            options = [part for option, file in files.items() for part in (f"--{option}", file)]
            line = refused("import", *options, "--pyramid", "1,2,3", "--out", tmp_path / "model")
            assert f"{path}: " in line
            assert name in line
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["tokenizer", "transformer"])
def test_missing_extra_and_mis_shaped_tensors(pair, tmp_path, refused, kind):
    files = {"tokenizer": pair.tokenizer, "transformer": pair.transformer}
    name = {"tokenizer": "decoder.conv_out.bias", "transformer": "head.bias"}[kind]
    whole = read_tensors(files[kind])
    for number, wrong in enumerate(
        [
            {other: array for other, array in whole.items() if other != name},
            {**whole, "surplus": np.zeros(1, np.float32)},
            {**whole, name: np.zeros((1, 2), np.float32)},
        ]
    ):
        path = tmp_path / f"wrong_{number}.pth"
        write_tensors(path, wrong, {})
        options = [part for option, file in {**files, kind: path}.items() for part in (f"--{option}", file)]
        line = refused("import", *options, "--pyramid", "1,2,3", "--out", tmp_path / "model")
        assert f"{path}: tensor '{'surplus' if number == 1 else name}'" in line


def test_tensors_of_one_name_are_refused_with_their_file(tmp_path, refused):
    torch = pytest.importorskip("torch")
    torch.save({"a": {"b": torch.zeros(1)}, "a.b": torch.zeros(1)}, tmp_path / "twice.pth")
    line = refused("import", "--tokenizer", tmp_path / "twice.pth", "--out", tmp_path / "model")
    assert f"{tmp_path / 'twice.pth'}: " in line
    assert "'a.b'" in line


def test_a_transformer_of_another_tokenizer(pair, tmp_path, refused):
    for change, needle in (({"codebook_size": 32}, "made for codes 32"), ({"code_width": 8}, "code width 8")):
        other = drawn_model(tokenizer_config(**change), transformer_config(**change))
        write_tensors(tmp_path / "var.pth", transformer_tensors(other), {})
        files = ["--tokenizer", pair.tokenizer, "--transformer", tmp_path / "var.pth", "--pyramid", "1,2,3"]
        line = refused("import", *files, "--out", tmp_path / "model")
        assert f"{tmp_path / 'var.pth'}: " in line
        assert needle in line


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        (["--model", "{model}"], "nothing to write"),
        (["--tokenizer", "{new}.pth"], "required: --model"),
        (["--model", "{missing}", "--tokenizer", "{new}.pth"], "missing: no such model directory"),
        (["--model", "{vae}", "--tokenizer", "{new}.pth"], "vae.pth: no such model directory"),
        (["--model", "{folder}", "--tokenizer", "{new}.pth"], "folder: not a model directory"),
        (["--model", "{only}", "--transformer", "{new}.pth"], "has a tokenizer only"),
        (["--model", "{only}", "--tokenizer", "{new}.pth", "--transformer", "{new}_2.pth"], "has a tokenizer only"),
        (["--model", "{model}", "--tokenizer", "{new}.onnx"], "new.onnx: the suffix names no format of tensors"),
        (["--model", "{model}", "--tokenizer", "{new}.pth", "--transformer", "{new}"], "new: the suffix names no"),
        (["--model", "{model}", "--tokenizer", "{new}.pth", "--transformer", "{new}.pth"], "cannot hold both networks"),
        (["--model", "{model}", "--tokenizer", "{folder}.pth"], "it is a folder"),
        (["--model", "{model}", "--tokenizer", "{file}/vae.pth"], "cannot be written"),
    ],
)
def test_what_cannot_be_exported(pair, tmp_path, refused, options, needle):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "file").write_text("precious")
    places = {"model": pair.model, "only": pair.tokenizer_only, "vae": pair.tokenizer}
    places |= {name: tmp_path / name for name in ("new", "missing", "folder", "file")}
    assert needle in refused("export", *(option.format(**places) for option in options))


def test_a_damaged_model_is_not_exported(pair, tmp_path, refused):
    shutil.copytree(pair.model, tmp_path / "model")
    weights = bytearray((tmp_path / "model" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model" / "model.safetensors").write_bytes(weights)
    line = refused("export", "--model", tmp_path / "model", "--tokenizer", tmp_path / "vae.pth")
    assert f"{tmp_path / 'model'}: config or weights of the " in line
