"""The model directory: a round trip, fingerprints that notice everything, and one line for every damage."""

from __future__ import annotations

import dataclasses
import errno
import json
import math

import numpy as np
import pytest

from tests.formats.samples import only_files_in
from tests.interop.checkpoints import TRANSFORMER, drawn_model, tokenizer_config
from var_jax import model_directory
from var_jax.errors import InputError
from var_jax.formats.safetensors_file import read_safetensors, write_safetensors
from var_jax.model_directory import CONFIG_FILE, WEIGHTS_FILE, Model, fingerprint, read_model, save_model
from var_jax.models.parameters import flatten, unflatten

SMALL = tokenizer_config(base_channels=8, channel_multipliers=(1,), norm_groups=4)


@pytest.fixture(scope="module")
def model():
    return drawn_model(SMALL)


@pytest.fixture
def folder(model, tmp_path):
    save_model(tmp_path / "model", model)
    return tmp_path / "model"


def assert_equal(left: Model, right: Model) -> None:
    assert left.parts.keys() == right.parts.keys()
    for part, (config, params) in left.parts.items():
        theirs, their_params = right.parts[part]
        assert config == theirs
        flat, their_flat = flatten(params), flatten(their_params)
        assert flat.keys() == their_flat.keys()
        assert all(flat[path].tobytes() == their_flat[path].tobytes() for path in flat)
    np.testing.assert_array_equal(left.code_counts_SxV, right.code_counts_SxV)
    assert dict(left.source) == dict(right.source)


def test_round_trip(model, tmp_path):
    for number, original in enumerate([model, dataclasses.replace(model, transformer_config=None)]):
        path = tmp_path / "deep" / str(number)
        save_model(path, original)
        read = read_model(path)
        assert_equal(read, original)
        assert isinstance(read.tokenizer_config, type(SMALL))
        assert only_files_in(path) == [CONFIG_FILE, WEIGHTS_FILE]


def test_stored_in_half_the_room(model, folder, tmp_path):
    """float16 on disk, float32 once read, fingerprints of what is read: it is a model like any other."""
    save_model(tmp_path / "half", model, half=True)
    stored = read_safetensors(tmp_path / "half" / WEIGHTS_FILE)
    assert {array.dtype for name, array in stored.items() if not name.startswith("statistics")} == {np.dtype("float16")}
    sizes = [(path / WEIGHTS_FILE).stat().st_size for path in (folder, tmp_path / "half")]
    assert sizes[1] < 0.65 * sizes[0]  # the header, which no rounding shortens, is much of so small a file
    read = read_model(tmp_path / "half")
    for part, (_, params) in read.parts.items():
        theirs = flatten(model.parts[part][1])
        for path, leaf in flatten(params).items():
            assert leaf.dtype == np.float32
            np.testing.assert_allclose(leaf, theirs[path], rtol=2**-11, atol=2**-25)
    save_model(tmp_path / "again", read)
    assert read_model(tmp_path / "again").fingerprints == read.fingerprints
    damaged = {name: array + (array.dtype == np.float16) for name, array in stored.items()}
    write_safetensors(tmp_path / "half" / WEIGHTS_FILE, damaged, {})
    with pytest.raises(InputError, match="changed since they were written"):
        read_model(tmp_path / "half")


def test_what_is_beyond_half_precision(model, tmp_path):
    params = unflatten({name: leaf + np.float32(1e5) for name, leaf in flatten(model.tokenizer_params).items()})
    with pytest.raises(InputError, match="tokenizer parameter '.+': is beyond float16; store float32 instead"):
        save_model(tmp_path / "half", dataclasses.replace(model, tokenizer_params=params), half=True)
    assert only_files_in(tmp_path) == []


def test_the_config_can_be_read_by_people(model, folder):
    config = json.loads((folder / CONFIG_FILE).read_text())
    assert config["tokenizer"]["pyramid"] == [1, 2, 3]
    assert config["transformer"]["depth"] == TRANSFORMER.depth
    assert config["source"] == {"tokenizer": "drawn"}
    assert config["fingerprints"] == {part: fingerprint(*values) for part, values in model.parts.items()}


def test_fingerprint_is_for_ever():
    """Stored tokens name their tokenizer by it, so no version may compute another."""
    params = {"b": np.arange(3, dtype=np.float32), "a": {"kernel": np.ones((2, 1), np.float32)}}
    config = {"width": 2, "pyramid": [1, 2]}
    expected = "15059272c5a353412709e589004189d1fc1ed3199694099bf6dcee4a355f38be"
    assert fingerprint(config, params) == expected
    assert fingerprint(dict(reversed(config.items())), dict(reversed(params.items()))) == expected


def test_fingerprint_notices_every_weight_and_every_field(model):
    for config, params in model.parts.values():
        seen = {fingerprint(config, params)}
        for field in config:
            seen.add(fingerprint(config | {field: "something else"}, params))
        flat = flatten(params)
        for path, leaf in flat.items():
            flipped = leaf.copy()
            flipped.reshape(-1).view(np.uint32)[-1] ^= 1
            seen.add(fingerprint(config, unflatten(flat | {path: flipped})))
        *room, name = path
        for other in (leaf[None], leaf.astype(np.float64), leaf.view(np.int32)):
            seen.add(fingerprint(config, unflatten(flat | {path: other})))
        renamed = {place: array for place, array in flat.items() if place != path} | {(*room, name + "_"): leaf}
        seen.add(fingerprint(config, unflatten(renamed)))
        assert len(seen) == 1 + len(config) + len(flat) + 4


def refused(folder, *needles):
    """The one line that reading gives, which names the folder and everything in `needles`."""
    with pytest.raises(InputError) as raised:
        read_model(folder)
    message = str(raised.value)
    assert message.startswith(str(folder))
    assert "\n" not in message
    assert [needle for needle in needles if needle not in message] == []


def edit_config(folder, edit):
    config = json.loads((folder / CONFIG_FILE).read_text())
    edit(config)
    (folder / CONFIG_FILE).write_text(json.dumps(config))


def edit_weights(folder, edit):
    tensors = {name: np.array(array) for name, array in read_safetensors(folder / WEIGHTS_FILE).items()}
    edit(tensors)
    write_safetensors(folder / WEIGHTS_FILE, tensors, {})


@pytest.mark.parametrize(
    ("edit", "needles"),
    [
        (lambda c: c["tokenizer"].update(lookup="cosine"), ["weights of the tokenizer changed", "make it anew"]),
        (lambda c: c["transformer"].update(drop_path=0.5), ["weights of the transformer changed"]),
        (lambda c: c["tokenizer"].update(lookup="other"), [CONFIG_FILE, "lookup 'other'"]),
        (lambda c: c["tokenizer"].update(phi_ratio="half"), [CONFIG_FILE, "phi_ratio is 'half': expected a"]),
        (lambda c: c["tokenizer"].update(pyramid=None), [CONFIG_FILE, "section 'tokenizer'", "wrong type"]),
        (lambda c: c["tokenizer"].update(channel_multipliers=2), [CONFIG_FILE, "section 'tokenizer'", "wrong type"]),
        (lambda c: c["transformer"].update(mlp_ratio=[4]), [CONFIG_FILE, "mlp_ratio is [4]: expected a number"]),
        (lambda c: c["transformer"].update(depth=2.0), [CONFIG_FILE, "depth is 2.0"]),
        (lambda c: c["transformer"].update(depth=3), [WEIGHTS_FILE, "tensor 'transformer/blocks/", "(3, "]),
        (lambda c: c["transformer"].update(code_width=5), [WEIGHTS_FILE, "'transformer/word_kernel'"]),
        (lambda c: c["tokenizer"].update(pyramid=[2, 2, 3]), [CONFIG_FILE, "pyramid 1,2,3, the tokenizer 2,2,3"]),
        (lambda c: c["tokenizer"].update(code_widht=4), [CONFIG_FILE, "unknown field 'code_widht'"]),
        (lambda c: c["tokenizer"].pop("dropout"), [CONFIG_FILE, "lacks the field 'dropout'"]),
        (lambda c: c.pop("tokenizer"), [CONFIG_FILE, "no section 'tokenizer'"]),
        (lambda c: c.update(transformer=None), [CONFIG_FILE, "no section 'transformer'"]),
        (lambda c: c.pop("transformer"), [WEIGHTS_FILE, "tensor 'transformer/", "no place"]),
        (lambda c: c.pop("fingerprints"), [CONFIG_FILE, "no section 'fingerprints'"]),
        (lambda c: c["fingerprints"].pop("transformer"), ["weights of the transformer changed"]),
        (lambda c: c.pop("source"), [CONFIG_FILE, "no section 'source'"]),
        (lambda c: c.update(format_version=2), [CONFIG_FILE, "version 2", "reads version 1", "update"]),
        (lambda c: c.pop("format_version"), [CONFIG_FILE, "version None"]),
        (lambda c: c.update(format="another"), [CONFIG_FILE, "not the config of a var_jax model directory"]),
    ],
)
def test_an_edited_config_is_refused(folder, edit, needles):
    edit_config(folder, edit)
    refused(folder, *needles)


ABSURD = [None, True, "a", -1, 0, 0.5, math.nan, math.inf, 10**9, 10**30, [], {}, [1, None], "9" * 9]


@pytest.mark.parametrize("part", ["tokenizer", "transformer"])
def test_absurd_values_are_refused_at_once(folder, part):
    """Each field of a part takes each value: refused in a line, or of no consequence. Some once filled the memory."""
    config = json.loads((folder / CONFIG_FILE).read_text())
    for name, right in config[part].items():
        for value in ABSURD:
            if value == right and type(value) is type(right):
                continue
            edit_config(folder, lambda c, name=name, value=value: c[part].update({name: value}))
            refused(folder)
            edit_config(folder, lambda c, name=name, right=right: c[part].update({name: right}))
    for value in ABSURD:
        edit_config(folder, lambda c, value=value: c.update({part: value}))
        refused(folder)


NAMES = tuple("abcde")


@pytest.mark.parametrize(
    ("names", "needle"),
    [
        (5, "'class_names' is 5, expected a list of texts"),
        (None, "'class_names' is None, expected a list of texts"),
        ("abcde", "expected a list of texts"),
        ([1, 2], "expected a list of texts"),
        ([{}] * 5, "expected a list of texts"),
        (NAMES[1:], "has 4 names for 5 classes"),
        ([*NAMES, "i"], "has 6 names for 5 classes"),
        ([*NAMES[:4], "a"], "the name 'a' in 'class_names' is there 2 times"),
        ([*NAMES[:4], ""], "the name '' in 'class_names' is empty"),
        ([*NAMES[:4], "a\x1b[2J"], r"the name 'a\x1b[2J' in 'class_names' is empty, or has a control character"),
        ([*NAMES[:4], "a\nb"], r"the name 'a\nb'"),
        ([*NAMES[:4], "\u202eb"], r"the name '\u202eb'"),
        (NAMES[::-1], "names of classes or counts of codes changed since they were written"),
        ([*NAMES[:4], "E"], "names of classes or counts of codes changed since they were written"),
        ([], "names of classes or counts of codes changed since they were written"),
    ],
)
def test_names_of_classes_are_checked(model, tmp_path, names, needle):
    assert model.transformer_config.num_classes == len(NAMES)
    save_model(tmp_path / "model", dataclasses.replace(model, class_names=NAMES))
    assert read_model(tmp_path / "model").class_names == NAMES
    edit_config(tmp_path / "model", lambda c: c.update(class_names=names))
    refused(tmp_path / "model", needle)


def test_names_that_are_not_utf8_and_directories_of_older_versions(model, tmp_path):
    named = dataclasses.replace(model, class_names=(*NAMES[:4], "caf\udce9"))
    save_model(tmp_path / "model", named)
    assert read_model(tmp_path / "model").class_names == named.class_names
    edit_config(tmp_path / "model", lambda c: c.pop("fingerprint_of_names_and_counts"))
    assert read_model(tmp_path / "model").class_names == named.class_names
    edit_config(tmp_path / "model", lambda c: c.pop("class_names"))
    assert read_model(tmp_path / "model").class_names == ()


def test_one_flipped_bit_in_the_rest_is_noticed(model, tmp_path):
    """Counts of codes, names, origins, and the name of their fingerprint."""
    save_model(tmp_path / "model", dataclasses.replace(model, class_names=NAMES))
    whole = (tmp_path / "model" / CONFIG_FILE).read_bytes()
    for word in (b'"c"', b'"drawn"', b"fingerprint_of_names_and_counts", b'"source"', b'"class_names"'):
        place = whole.index(word) + 1
        (tmp_path / "model" / CONFIG_FILE).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused(tmp_path / "model")
    (tmp_path / "model" / CONFIG_FILE).write_bytes(whole)
    edit_weights(
        tmp_path / "model", lambda t: t["statistics/code_counts"].reshape(-1).view(np.uint32).__setitem__(3, 1)
    )
    refused(tmp_path / "model", "names of classes or counts of codes changed since they were written")


@pytest.mark.parametrize(
    ("content", "needle"),
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", "is not the config"),
        (b'{"model_type": "gpt2"}', "is not the config"),
    ],
    ids=["empty", "cut", "binary", "deep", "list", "foreign"],
)
def test_another_json_is_refused(folder, content, needle):
    (folder / CONFIG_FILE).write_bytes(content)
    refused(folder, CONFIG_FILE, needle)


@pytest.mark.parametrize(
    ("edit", "needles"),
    [
        (lambda t: t["tokenizer/encoder/conv_in/kernel"].reshape(-1).__setitem__(0, 7), ["tokenizer changed"]),
        (lambda t: t["transformer/head_bias"].__setitem__(0, 7), ["transformer changed"]),
        (lambda t: t.pop("transformer/head_bias"), ["tensor 'transformer/head_bias' is missing"]),
        (lambda t: t.pop("statistics/code_counts"), ["'statistics/code_counts' is missing"]),
        (lambda t: t.update({"statistics/code_counts": np.zeros(3)}), ["code_counts", "not of shape (3, 16)"]),
        (lambda t: t.update(extra=np.zeros(3)), ["tensor 'extra' has no place"]),
        (lambda t: t.update({"transformer/head_bias": np.zeros(3)}), ["head_bias' has shape (3,)", "implies (16,)"]),
        (lambda t: t.update({"transformer/head_bias": t["transformer/head_bias"].astype(float)}), ["changed"]),
    ],
    ids=["tokenizer", "transformer", "missing", "no_counts", "counts", "extra", "shape", "type"],
)
def test_damaged_weights_are_refused(folder, edit, needles):
    edit_weights(folder, edit)
    refused(folder, *needles)


def test_one_flipped_bit_anywhere_in_a_weight_is_noticed(folder):
    content = (folder / WEIGHTS_FILE).read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    meta = json.loads(content[8:header])
    end = min(value["data_offsets"][0] for name, value in meta.items() if name.startswith("transformer/"))
    for place in (header + end, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 1
        (folder / WEIGHTS_FILE).write_bytes(damaged)
        refused(folder, "changed since they were written")


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_or_cut_file_is_refused(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, name)
    path.unlink()
    refused(folder, name)


def test_what_is_no_model_directory(tmp_path):
    (tmp_path / "file").write_text("text")
    refused(tmp_path, "has no config.json", "var-jax import")
    for path in (tmp_path / "missing", tmp_path / "file", tmp_path / ("long" * 200)):
        refused(path, "no such model directory", "var-jax import")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("a bug"), None])
def test_never_half_written(model, tmp_path, monkeypatch, error):
    """Whether the weights fail in the middle or the config after them, nothing is left."""

    def write_some(path, tensors, metadata):
        path.write_bytes(b"half of it")
        raise error

    if error is None:
        model = dataclasses.replace(model, source={"tokenizer": object()})  # no JSON can hold it
    else:
        monkeypatch.setattr(model_directory, "write_safetensors", write_some)
    kind = InputError if isinstance(error, OSError) else RuntimeError if error else TypeError
    with pytest.raises(kind):
        save_model(tmp_path / "new" / "model", model)
    assert only_files_in(tmp_path) == []


def test_a_taken_place_is_left_as_it_is(model, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name, reason in (("mine", "not empty"), ("file", "a file stands there")):
        with pytest.raises(InputError, match=reason):
            save_model(tmp_path / name, model)
    assert only_files_in(tmp_path) == ["file", "mine", "mine/notes.txt"]
    assert (tmp_path / "mine" / "notes.txt").read_text() == "precious"


def test_an_empty_folder_is_taken_over(model, tmp_path):
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", model)
    assert_equal(read_model(tmp_path / "model"), model)


@pytest.mark.parametrize("change", [{"codebook_size": 17}, {"code_width": 5}, {"pyramid": "1,2,4"}])
def test_a_pair_that_does_not_fit(model, change):
    other = dataclasses.replace(TRANSFORMER, **change)
    with pytest.raises(InputError, match=f"{next(iter(change))} .*: not a pair"):
        dataclasses.replace(model, transformer_config=other)
