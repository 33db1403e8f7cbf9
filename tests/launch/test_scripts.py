"""Dry runs print the commands that golden/ has; real runs, with every cloud program replaced, come to the right end."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path

import pytest

from tests.fake_gcs import FakeGcs
from tests.packaging.tree import ROOT, run

GOLDEN = Path(__file__).parent / "golden"
SLICE = {"NAME": "d16", "ZONE": "us-west4-a", "TYPE": "v5litepod-16", "RUNTIME": "v2-alpha-tpuv5-lite"}
CLUSTER = {"CLUSTER": "var", "NAME": "d16", "ZONE": "us-east5-b", "TYPE": "v5litepod-16"}
TRAIN = ["train", "--config", "var:d16", "--workdir", "gs://BUCKET/var_d16", "--config.tokenizer=gs://BUCKET/a b"]
DRY_RUNS = {
    "queued_resource_up": ("tpu/queued_resource.sh", ["up", *TRAIN], SLICE),
    "queued_resource_slices": (
        "tpu/queued_resource.sh",
        ["up", *TRAIN],
        SLICE
        | {"SLICES": "2", "PROJECT": "mine", "SPOT": "0", "CACHE": "gs://B/xla", "FETCH": "gs://B/tokens", "KEEP": "1"},
    ),
    "queued_resource_each": ("tpu/queued_resource.sh", ["each", "df -h && ls 'a b'"], SLICE),
    "queued_resource_delete": ("tpu/queued_resource.sh", ["delete"], SLICE),
    "xpk_cluster": ("tpu/xpk.sh", ["cluster"], CLUSTER),
    "xpk_run": ("tpu/xpk.sh", ["run", *TRAIN], CLUSTER),
    "xpk_run_image": (
        "tpu/xpk.sh",
        ["run", *TRAIN],
        CLUSTER | {"IMAGE": "docker.pkg.dev/p/var_jax", "CACHE": "gs://B/xla", "FETCH": "gs://B/tokens", "SLICES": "2"},
    ),
    "xpk_stop": ("tpu/xpk.sh", ["stop"], CLUSTER),
    "xpk_delete": ("tpu/xpk.sh", ["delete"], CLUSTER),
    "slurm": ("gpu/slurm.sbatch", TRAIN, {}),
}
OWN = ("NAME", "ZONE", "TYPE", "RUNTIME", "PROJECT", "SLICES", "SPOT", "CACHE", "FETCH", "PLATFORM", "INTERVAL", "KEEP")


def script(name, *arguments, cwd=ROOT, **env):
    """A launch script's result; TMPDIR is as if it were unset."""
    clean = {own: "" for own in OWN if own not in env and own in os.environ}
    return run(["bash", ROOT / "launch" / name, *map(str, arguments)], cwd, TMPDIR="/tmp", **(clean | env))


@pytest.mark.parametrize("name", DRY_RUNS)
def test_dry_runs(name):
    """To take over a change: the new text is in the assertion's message."""
    file, arguments, env = DRY_RUNS[name]
    printed = script(file, "--dry-run", *arguments, **env)
    assert printed.returncode == 0, printed.stderr
    found = "".join(f"{line.rstrip()}\n" for line in printed.stdout.replace(str(ROOT), "CLONE").splitlines())
    assert found == (GOLDEN / f"{name}.txt").read_text()


def test_every_golden_text_is_compared():
    assert {file.stem for file in GOLDEN.glob("*.txt")} == set(DRY_RUNS)


@pytest.mark.parametrize("file", ["tpu/queued_resource.sh", "tpu/xpk.sh", "gpu/slurm.sbatch", "host.sh"])
def test_without_a_command_they_tell_what_there_is(file):
    told = script(file, **SLICE, CLUSTER="var")
    assert told.returncode == 2
    assert told.stdout == ""
    assert "command" in told.stderr.lower()


@pytest.mark.parametrize(("file", "missing"), [("tpu/queued_resource.sh", "NAME"), ("tpu/xpk.sh", "CLUSTER")])
def test_what_is_missing_is_named(file, missing):
    told = script(file, "--dry-run", "up", "train", **{missing: ""})
    assert told.returncode != 0
    assert f"{missing}: is the name of" in told.stderr


class Cloud:
    """Programs of the cloud's, written to do what a test needs and to note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()

    def program(self, name: str, body: str) -> None:
        file = self.folder / "bin" / name
        file.write_text(f'#!/usr/bin/env bash\necho "$0 $*" | sed "s|.*/bin/||" >>"{self.folder}/calls"\n{body}\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def run(self, file: str, *arguments: object, **env: str):
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return script(file, *arguments, PATH=path, INTERVAL="0", FOLDER=str(self.folder), **env)


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)


# A slice that is taken away during the first run: states are read from a file, a line a question.
GCLOUD = r"""
case "$*" in
  *queued-resources\ describe*)
    line="$(head -n 1 "$FOLDER/states")"
    sed -i '1{$!d}' "$FOLDER/states"
    [[ "$line" == NONE ]] && exit 1
    echo "$line" ;;
  *follow*)
    line="$(head -n 1 "$FOLDER/follows")"
    sed -i '1{$!d}' "$FOLDER/follows"
    [[ "$line" == BROKEN ]] && exit 255
    printf '%b\n' "$line" ;;
esac
"""


def made(cloud, kind):
    """The calls of gcloud without their places, in short."""
    words = {"create", "describe", "delete", "scp", "ssh"}
    return [next(word for word in call.split() if word in words) for call in cloud.calls() if call.startswith(kind)]


def up(cloud, states, follows):
    cloud.program("gcloud", GCLOUD)
    (cloud.folder / "states").write_text("\n".join(states) + "\n")
    (cloud.folder / "follows").write_text("\n".join(follows) + "\n")
    return cloud.run("tpu/queued_resource.sh", "up", *TRAIN, **SLICE)


def test_up_finishes_and_gives_back(cloud):
    done = up(cloud, ["NONE", "WAITING_FOR_RESOURCES", "ACTIVE"], ["step 1\\n== running", "step 2\\n== ended 0"])
    assert done.returncode == 0, done.stderr
    assert done.stdout == "step 1\nstep 2\n"
    expected = ["describe", "create", "describe", "describe", "scp", "ssh", "ssh", "ssh", "ssh", "describe", "delete"]
    assert made(cloud, "gcloud") == expected


def test_up_asks_again_for_what_was_taken_away(cloud):
    first = ["NONE", "ACTIVE", "SUSPENDED", "SUSPENDED", "SUSPENDED"]
    again = ["NONE", "ACTIVE", "ACTIVE"]
    done = up(cloud, first + again, ["step 1\\n== running", "BROKEN", "step 2\\n== ended 0"])
    assert done.returncode == 0, done.stderr
    assert "d16 is gone: requesting another" in done.stderr
    found = made(cloud, "gcloud")
    assert found.count("create") == found.count("delete") == 2
    assert found.count("scp") == 2


def test_up_starts_again_what_was_stopped(cloud):
    done = up(cloud, ["NONE", "ACTIVE"], ["== ended 75", "== ended 0"])
    assert done.returncode == 0, done.stderr
    assert "still exists: starting it again" in done.stderr
    assert made(cloud, "gcloud").count("create") == 1


def test_up_gives_up_on_bad_input_and_on_what_always_fails(cloud):
    done = up(cloud, ["NONE", "ACTIVE"], ["var-jax train: no\\n== ended 2"])
    assert done.returncode == 2
    assert made(cloud, "gcloud")[-1] == "delete"
    done = up(cloud, ["ACTIVE"], ["== ended 1"])
    assert done.returncode == 1
    assert "failed 6 times" in done.stderr


SRUN = r"""
shift # --kill-on-bad-exit
trap 'echo "step got TERM" >>"$FOLDER/calls"; exit 75' TERM
echo $$ >"$FOLDER/step"
for _ in $(seq 200); do [[ -e "$FOLDER/end" ]] && exit "$(cat "$FOLDER/end")"; sleep 0.05; done
"""


def slurm(cloud, **env):
    cloud.program("srun", SRUN)
    cloud.program("scancel", 'kill -TERM "$(cat "$FOLDER/step")"')
    cloud.program("scontrol", "")
    return cloud.run("gpu/slurm.sbatch", *TRAIN, SLURM_JOB_ID="7", **env)


@pytest.mark.parametrize(
    ("code", "restarts", "again"),
    [(0, "0", False), (2, "0", False), (75, "60", True), (1, "3", True), (1, "50", False)],
)
def test_slurm_puts_back_what_did_not_finish(cloud, code, restarts, again):
    (cloud.folder / "end").write_text(str(code))
    done = slurm(cloud, SLURM_RESTART_COUNT=restarts)
    assert done.returncode == code
    assert ("scontrol requeue 7" in cloud.calls()) == again


def test_slurm_hands_on_the_signal(cloud):
    script_file = cloud.folder / "signalled.sh"
    script_file.write_text(
        f'bash "{ROOT}/launch/gpu/slurm.sbatch" train & job=$!\n'
        f'until [[ -e "{cloud.folder}/step" ]]; do sleep 0.05; done\nkill -TERM "$job"\nwait "$job"\n'
    )
    cloud.program("srun", SRUN)
    cloud.program("scancel", 'kill -TERM "$(cat "$FOLDER/step")"')
    cloud.program("scontrol", "")
    path = f"{cloud.folder / 'bin'}:{os.environ['PATH']}"
    done = run(["bash", script_file], ROOT, PATH=path, FOLDER=str(cloud.folder), SLURM_JOB_ID="7")
    assert done.returncode == 75, done.stderr
    assert cloud.calls()[1:] == ["scancel --signal=TERM 7.0", "step got TERM", "scontrol requeue 7"]


@pytest.fixture
def home(tmp_path):
    """A host's home: the clone, and a virtual environment that is this one."""
    (tmp_path / "var_jax").symlink_to(ROOT)
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    program = programs / "var-jax"
    program.write_text(f'#!/usr/bin/env bash\nexec "{sys.executable}" -m var_jax.cli.main "$@"\n')
    program.chmod(0o755)
    return tmp_path


def on_host(home, line, **env):
    """A line of shell, as it arrives on a host."""
    return run(["bash", "-c", line], home, pythonpath=ROOT, HOME=str(home), **env)


def remote_lines(*arguments, **env):
    """What a dry run would have hosts do."""
    printed = script("tpu/queued_resource.sh", "--dry-run", *arguments, **(SLICE | env)).stdout.splitlines()
    return [words[words.index("--command") + 1] for words in map(shlex.split, printed) if "--command" in words]


@pytest.mark.campaign
def test_the_very_lines_of_a_pod_train(home):
    """The same lines again resume; what a host is asked for goes from its log to the exit code."""
    config = ROOT / "tests" / "multi_process" / "tiny_config.py"
    command = ["run", "train", "--config", f"{config}:tokenizer", "--workdir", "runs/a b"]
    (start,) = remote_lines(*command, PLATFORM="cpu", CACHE="xla")
    started = on_host(home, start)
    assert started.returncode == 0, started.stderr
    assert "== started (process" in started.stdout
    assert "== runs already" in on_host(home, start).stdout
    follow = remote_lines("watch")[0]
    waiting = f'while last="$({follow} | tail -n 1)"; [[ "$last" == "== running" ]]; do sleep 1; done; echo "$last"'
    assert on_host(home, waiting).stdout == "== ended 0\n", (home / "run.log").read_text()
    assert "finished: 2 steps" in on_host(home, follow).stdout
    assert any((home / "xla").iterdir())
    assert "finished: 2 steps" in on_host(home, start.replace("start", "run")).stdout


def test_a_folder_is_fetched_once(home):
    pytest.importorskip("gcsfs")
    (home / "venv" / "bin" / "var-jax").write_text("#!/usr/bin/env bash\n")
    program = home / "venv" / "bin" / "python"
    program.write_text(f'#!/usr/bin/env bash\nexec "{sys.executable}" "$@"\n')
    program.chmod(0o755)
    gcs, line = FakeGcs(), "bash var_jax/launch/host.sh run train --help"
    for name in ("index.json", "deep/a.array_record"):
        gcs.put("bucket", f"stores/tokens/{name}", name.encode())
    with gcs as url:
        env = {"STORAGE_EMULATOR_HOST": url, "FSSPEC_GCS_TOKEN": "anon", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
        on_host(home, line, FETCH="gs://bucket/stores/tokens", **env)
    fetched = {str(file.relative_to(home / "data")) for file in (home / "data").rglob("*") if file.is_file()}
    assert fetched == {"tokens/index.json", "tokens/deep/a.array_record", "tokens.fetched"}
    assert (home / "data" / "tokens" / "index.json").read_bytes() == b"index.json"
    again = on_host(home, line, FETCH="gs://bucket/stores/tokens", STORAGE_EMULATOR_HOST="http://127.0.0.1:1")
    assert again.returncode == 0, again.stderr  # nobody was asked


def test_the_very_lines_of_a_pod_refuse_a_cpu(home):
    (start,) = remote_lines("run", "train", "--config", "shapes_tokenizer", "--workdir", "runs/a")
    refused = on_host(home, start.replace("start", "run"))
    assert refused.returncode == 2
    assert "platform 'tpu' was requested, JAX found cpu" in refused.stderr
    assert not (home / "runs").exists()
