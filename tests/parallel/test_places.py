"""Where a process finds out that it is one of several."""

from __future__ import annotations

import pytest

from var_jax.errors import InputError
from var_jax.parallel import processes
from var_jax.parallel.processes import find_place
from var_jax.parallel.rendezvous import Place

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[001-002]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
GKE = {"TPU_WORKER_HOSTNAMES": "localhost,b,c,d", "TPU_WORKER_ID": "2"}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    """No cluster, whatever this machine is."""
    for name in (*SLURM, *GKE, "TPU_PROCESS_ADDRESSES", "KUBERNETES_SERVICE_HOST", "JAX_COORDINATOR_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processes.glob, "glob", lambda pattern: [])


def test_alone():
    assert find_place("auto") is None
    assert find_place("off") is None
    with pytest.raises(InputError, match="processes 'on': there is no sign of others here"):
        find_place("on")


def test_named():
    assert find_place("host:8476,4,3") == Place("host:8476", 4, 3)


@pytest.mark.parametrize("which", ["two", "localhost,2,0", "localhost:1,2,2", "localhost:1,0,0", ""])
def test_no_place(which):
    with pytest.raises(InputError, match=rf"processes '{which}': expected auto .*INDEX from 0 to COUNT - 1"):
        find_place(which)


@pytest.mark.parametrize("which", ["auto", "on"])
def test_slurm(monkeypatch, which):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "8476")
    assert find_place(which) == Place("node001:8476", 4, 3, (1,))
    assert find_place("off") is None


def test_slurm_with_one_task(monkeypatch):
    for name, value in (SLURM | {"SLURM_NTASKS": "1"}).items():
        monkeypatch.setenv(name, value)
    assert find_place("auto") is None


def test_gke(monkeypatch):
    from jax._src.clusters import cloud_tpu_cluster

    for name, value in GKE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "8476")
    monkeypatch.setenv("MEGASCALE_NUM_SLICES", "1")
    monkeypatch.setenv("MEGASCALE_SLICE_ID", "0")
    monkeypatch.setenv("MEGASCALE_COORDINATOR_ADDRESS", "localhost:1")
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    found = find_place("auto")
    assert found == Place("localhost:8476", 4, 2)


def test_what_cannot_be_found_out(monkeypatch):
    for name, value in (SLURM | {"SLURM_PROCID": "third"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"processes of Slurm: cannot be detected \(ValueError: .*third"):
        find_place("auto")
