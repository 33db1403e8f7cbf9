"""The YAML files parse, hold only documented fields, and agree with each other and with the command line."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.launch.documented import JOBSET, KUEUE, SKYPILOT
from tests.packaging.tree import ROOT
from var_jax.cli.main import COMMANDS
from var_jax.training.config import load_config

LAUNCH = ROOT / "launch"


def read(name):
    return list(yaml.safe_load_all((LAUNCH / name).read_text(encoding="utf-8")))


def fields(node, path=""):
    """(path, value) of everything in a document that holds nothing further."""
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from fields(value, f"{path}.{name}" if path else name)
    elif isinstance(node, list) and node:
        for value in node:
            yield from fields(value, f"{path}[]")
    else:
        yield path, node


def undocumented(document, known):
    """Fields that the documentation does not name, or values that it does not."""
    free = tuple(name.removesuffix("*") for name in known if name.endswith(".*"))
    fits = lambda path, value: path in known and (known[path] is None or value in known[path])
    return [(path, value) for path, value in fields(document) if not (fits(path, value) or path.startswith(free))]


def test_jobset():
    (jobset,) = read("tpu/jobset.yaml")
    assert undocumented(jobset, JOBSET) == []
    assert undocumented({"spec": {"sucessPolicy": 1}}, JOBSET) == [("spec.sucessPolicy", 1)]


def test_kueue():
    documents = {document["kind"]: document for document in read("tpu/kueue.yaml")}
    assert set(documents) == set(KUEUE)
    for kind, document in documents.items():
        assert undocumented(document, KUEUE[kind]) == []


def test_skypilot():
    (task,) = read("sky.yaml")
    assert undocumented(task, SKYPILOT) == []
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]


def test_jobset_and_its_queue_agree():
    (jobset,) = read("tpu/jobset.yaml")
    documents = {document["kind"]: document for document in read("tpu/kueue.yaml")}
    queue = jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert documents["LocalQueue"]["metadata"]["name"] == queue
    assert documents["LocalQueue"]["spec"]["clusterQueue"] == documents["ClusterQueue"]["metadata"]["name"]
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    labels = documents["ResourceFlavor"]["spec"]["nodeLabels"]
    assert labels.items() <= pod["nodeSelector"].items()
    (container,) = pod["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert job["parallelism"] == job["completions"] == rows * columns // chips
    quota = documents["ClusterQueue"]["spec"]["resourceGroups"][0]["flavors"][0]["resources"][0]["nominalQuota"]
    assert quota >= replicated["replicas"] * rows * columns
    (rule, *_) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert rule["onExitCodes"]["values"] == [2, 75]
    patterns = [rule.get("onJobFailureMessagePatterns", [""])[0] for rule in jobset["spec"]["failurePolicy"]["rules"]]
    message = "Container var-jax for pod default/var-d16 failed with exit code {} matching FailJob rule at index 0"
    assert [bool(re.search(patterns[0], message.format(code))) for code in (2, 75, 20)] == [True, False, False]


@pytest.mark.parametrize("name", ["tpu/jobset.yaml", "sky.yaml"])
def test_their_command_is_one_that_there_is(name):
    (document,) = read(name)
    if name == "sky.yaml":
        words = document["run"].replace("\\\n", " ").replace('"', "").split()
        words = words[words.index("run") + 1 :]
        words = [word.replace("$CONFIG", document["envs"]["CONFIG"]) for word in words]
    else:
        (container,) = document["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
        assert container["command"] == ["bash", "launch/host.sh", "run"]
        words = container["args"]
    assert words[0] in COMMANDS
    config = load_config(words[words.index("--config") + 1], [word for word in words if word.startswith("--config.")])
    assert config.stage == "transformer"
