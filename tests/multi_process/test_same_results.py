"""One, two and four processes learn, tokenize and draw the same; a checkpoint of any goes on with any other."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.multi_process.conftest import CONFIG, DEVICES, checkpoint, finished, free_address, losses

pytestmark = pytest.mark.campaign

COUNTS = (1, 2, 4)
STEPS, BROKEN_AT = 4, 2


def commands(root: Path, count: int) -> list[list[str]]:
    """What `count` processes do in a row: both trainings, one taken over from other processes, a store, pictures."""
    own, tokenizer = root / str(count), root / "1" / "tokenizer"
    store = ["--kind", "shapes", "--size", "8", "--count", "24", "--enlarge", "1", "--pictures-per-file", "6"]
    transformer = ["train", "--config", f"{CONFIG}:transformer", f"--config.tokenizer={tokenizer}", "--workdir"]
    rows = []
    if count < 4:  # the first stage by one and by two: it compiles longest
        rows.append(["train", "--config", f"{CONFIG}:tokenizer", "--workdir", own / "tokenizer"])
    rows.append([*transformer, own / "var"])
    if count > 1:
        rows.append([*transformer, root / f"{count // 2}_then_{count}"])
    rows.append(["tokenize", "--model", tokenizer, *store, "--batch", "3", "--out", own / "store"])
    drawing = ["sample", "--model", root / "1" / "var", "--classes", "0,1,2", "--per-class", "4", "--batch", "4"]
    rows += [[*drawing, "--out", own / "pictures"], [*drawing, "--out", own / "pictures.npz"]]
    return [[str(word) for word in row] for row in rows]


def broken_off(source: Path, target: Path) -> None:
    """A copy of a training as it was at a checkpoint in the middle."""
    shutil.copytree(source, target)
    for item in (target / "checkpoints").iterdir():
        if item.name.isdigit() and int(item.name) > BROKEN_AT:
            shutil.rmtree(item)


@pytest.fixture(scope="module")
def root(launcher, tmp_path_factory):
    """Everything done by one, two and four processes, and at the end taken over from four by one.

    Workers of pytest-xdist share it: the first one does it, the others wait.
    """
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "same"
    root.mkdir(exist_ok=True)
    with open(root / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "done").exists():
            do_everything(launcher, root)
            (root / "done").touch()
    return root


def do_everything(launcher, root):
    for count in COUNTS:
        if count > 1:
            broken_off(root / str(count // 2) / "var", root / f"{count // 2}_then_{count}")
        file, address = root / f"{count}.json", free_address()
        file.write_text(json.dumps(commands(root, count)))
        which = [f"{address},{count},{index}" if count > 1 else "off" for index in range(count)]
        call = "tests.multi_process.probes:in_a_row"
        finished([launcher.start([place, file], call, DEVICES // count) for place in which])
    broken_off(root / "4" / "var", root / "4_then_1")
    train = ["train", "--config", f"{CONFIG}:transformer", f"--config.tokenizer={root / '1' / 'tokenizer'}"]
    finished([launcher.start([*train, "--workdir", root / "4_then_1", "--processes", "off"])])


def order(root: Path, count: int) -> dict[tuple[int, int], list[list[int]]]:
    """(number of the pass over the loop, step) -> the pictures of that step, of all processes in turn."""
    found: dict[tuple[int, int], list[list[int]]] = {}
    for index in range(count):
        seen: dict[int, int] = {}
        for line in Path(f"{root / str(count)}.json.order{index}").read_text().splitlines():
            _, step, indices = json.loads(line)
            again = seen[step] = seen.get(step, 0) + 1
            found.setdefault((again, step), []).append(indices)
    return found


@pytest.mark.parametrize("count", COUNTS[1:])
def test_losses_and_first_gradients(root, count):
    stages = ("tokenizer", "var") if count == 2 else ("var",)
    for stage in stages:
        one, many = root / "1" / stage, root / str(count) / stage
        assert losses(one).keys() == losses(many).keys()
        np.testing.assert_allclose(list(losses(one).values()), list(losses(many).values()), rtol=1e-5)
        first = [checkpoint(workdir, 1) for workdir in (one, many)]
        moments = [name for name in first[0] if "/mu/" in name]  # AdamW's, after one step: the gradient times 0.1 or so
        assert len(moments) > 10
        scale = max(np.abs(first[0][name]).max() for name in moments)
        for name in moments:
            np.testing.assert_allclose(first[0][name], first[1][name], rtol=1e-5, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize("count", COUNTS[1:])
def test_validation(root, count):
    figures = []
    for folder in (root / "1", root / str(count)):
        lines = [json.loads(line) for line in (folder / "var" / "metrics.jsonl").read_text().splitlines()]
        figures.append([line["loss"] for line in lines if line["kind"] == "validation"])
    assert len(figures[0]) == 2
    np.testing.assert_allclose(*figures, rtol=1e-5)
    names = [sorted(file.name for file in (root / n / "var" / "pictures").iterdir()) for n in ("1", str(count))]
    assert names[0] == names[1] != []


@pytest.mark.parametrize("count", COUNTS[1:])
def test_data_order(root, count):
    one, many = order(root, 1), order(root, count)
    # The first pass is the tokenizer's where that is trained, else the transformer's: both see the same pictures.
    for step in range(2):
        assert len(many[1, step]) == count
        assert sum(many[1, step], []) == one[1, step][0]
        assert len(one[1, step][0]) == 8


@pytest.mark.parametrize("path", ["1_then_2", "2_then_4", "4_then_1"])
def test_a_checkpoint_of_any_goes_on_with_any_other(root, path):
    assert f"resumed at step {BROKEN_AT} of {STEPS}" in (root / path / "log.txt").read_text()
    whole, taken_over = losses(root / "1" / "var"), losses(root / path)
    assert sorted(whole) == sorted(taken_over) == list(range(1, STEPS + 1))
    np.testing.assert_allclose([taken_over[step] for step in whole], list(whole.values()), rtol=1e-4)


def test_order_goes_on_where_it_was(root):
    """Two processes from the middle of one's training: the same pictures per step as in the unbroken one."""
    one, two = order(root, 1), order(root, 2)
    passes = {step: max(again for again, at in two if at == step) for step in range(BROKEN_AT, STEPS)}
    for step, again in passes.items():
        assert again == 2  # unbroken, and taken over
        assert sum(two[again, step], []) == one[1, step][0]


@pytest.mark.parametrize("count", COUNTS[1:])
@pytest.mark.parametrize("name", ["store", "pictures", "pictures.npz"])
def test_files_are_the_same_bytes(root, count, name):
    one, many = root / "1" / name, root / str(count) / name
    if one.is_file():
        assert one.read_bytes() == many.read_bytes()
        return
    content = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in (one, many)]
    assert len(content[0]) > 5
    assert content[0] == content[1]


def test_features_of_an_evaluation(launcher, tmp_path):
    call = "tests.multi_process.probes:extracts"
    finished([launcher.start([tmp_path / "alone", "--processes", "off"], call)])
    address = free_address()
    words = [[tmp_path / "two", "--processes", f"{address},2,{index}"] for index in range(2)]
    finished([launcher.start(argv, call, DEVICES // 2) for argv in words])
    alone = np.load(tmp_path / "alone0.npy")
    assert alone.shape == (22, 48)
    for index in range(2):
        np.testing.assert_array_equal(np.load(tmp_path / f"two{index}.npy"), alone)
