"""Processes that work together, through `jax.distributed`: the hosts of a TPU slice, Slurm's tasks, or any others."""

from __future__ import annotations

import contextlib
import glob
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from var_jax.errors import InputError
from var_jax.parallel.rendezvous import Place, meet
from var_jax.parallel.watch import FAILED, HEARTBEAT_SECONDS, LOST, SILENT_SECONDS, Watch

T = TypeVar("T")

EXPECTED = "auto (a TPU slice, Slurm, a Kubernetes job), on (the same, or an error), off, or HOST:PORT,COUNT,INDEX"
STOPPED = 75  # exit code: all work so far is saved, the same command goes on
SECONDS_TO_MEET = 300
_EXPLICIT = re.compile(r"(?P<address>[^,\s]+:\d+),(?P<count>\d+),(?P<index>\d+)")
_SECONDS_TO_END = 24 * 3600  # after the first process has ended: the others may have more to do
_watch: Watch | None = None
_shared = Counter()  # how often something was shared under a name, see `from_first`


@contextlib.contextmanager
def together(
    which: str,
    platform: str | None = None,
    *,
    saves: bool = False,
    seconds: float = SECONDS_TO_MEET,
    say: Callable[[str], None] = print,
) -> Iterator[None]:
    """Joins the other processes for the body, where `jax.process_index()` is this one among `jax.process_count()`.

    Enter it before anything looks for devices. From then on the death of one ends all (see `watch`), and so does an
    error of the body, by a sentence that names it; alone it is raised. After the body JAX waits for the others when
    Python ends.

    Args:
      which: see `EXPECTED`; HOST:PORT is an address of the process with index 0, which all can reach.
      platform: of devices that there must be: tpu, gpu or cpu; None for any.
      saves: whether the caller looks after SIGTERM by itself, by `multihost_utils.reached_preemption_sync_point`; else
        SIGTERM to one ends all with `STOPPED`.
      seconds: to wait for the others.
      say: prints a line; the first process calls it with the hosts, devices and versions.

    Raises:
      InputError: the same in every process: for another text, if the processes do not find each other or differ in
        versions or devices, or if there are others than `platform`.
    """
    global _watch
    place = find_place(which)
    if place is not None and place.count > 1:
        _join(place, saves, seconds, say)
    try:
        _check_platform(platform)
        if _watch is not None:
            _check_devices(_watch.hosts)
            if _watch.index == 0:
                say(start_line(_watch.hosts))
        yield
    except BaseException as error:
        if _watch is None:
            raise
        _fail(error)
    if _watch is not None:
        _watch.done()
        _watch = None


def _join(place: Place, saves: bool, seconds: float, say: Callable[[str], None]) -> None:
    global _watch
    hosts, peers = meet(place, versions(), seconds)
    _watch = Watch(peers, place.index, hosts, say)
    jax.distributed.initialize(
        *(place.address, place.count, place.index, place.device_ids),
        cluster_detection_method="deactivate",  # `find_place` has done it
        initialization_timeout=int(seconds) + 60,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=_SECONDS_TO_END,
    )
    if not saves:
        signal.signal(signal.SIGTERM, _stopped)


def find_place(which: str) -> Place | None:
    """This process's place; None for one that is alone.

    Raises:
      InputError: for a text that is none of `EXPECTED`, or "on" where there is no sign of others.
    """
    if which == "off":
        return None
    if found := _EXPLICIT.fullmatch(which):
        place = Place(found["address"], int(found["count"]), int(found["index"]))
        if place.index < place.count:
            return place
    elif which in ("auto", "on"):
        if _surroundings():
            return _detected()
        if which == "auto":
            return None
        raise InputError(f"processes 'on': there is no sign of others here; expected {EXPECTED}")
    raise InputError(f"processes '{which}': expected {EXPECTED}, INDEX from 0 to COUNT - 1")


def _surroundings() -> str | None:
    """The launcher that started this process, if it starts several."""
    env = os.environ
    if {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID"} <= set(env):
        return "Slurm" if int(env.get("SLURM_NTASKS", "1")) > 1 else None
    if env.get("TPU_PROCESS_ADDRESSES") or env.get("TPU_WORKER_HOSTNAMES"):
        return "GKE"
    if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env:
        return "Kubernetes"
    if (glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")) and importlib.util.find_spec("libtpu"):
        return "a TPU machine"
    return None


def _detected() -> Place | None:
    """The place that JAX detects."""
    from jax._src.clusters import ClusterEnv  # JAX's public functions join at the same time

    try:
        detect = ClusterEnv.auto_detect_unset_distributed_params
        address, count, index, ids = detect(None, None, None, None, None, SECONDS_TO_MEET)
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"processes of {_surroundings()}: cannot be detected ({reason}); give {EXPECTED}") from None
    return None if address is None else Place(address, count, index, None if ids is None else tuple(ids))


def versions() -> dict[str, str]:
    """Versions of everything that has to be the same in all processes."""
    own = sys.modules["var_jax"].__version__  # this room may not import the face that looks at all rooms
    found = {"var_jax": own, "python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for name in ("jax", "jaxlib", "libtpu"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def start_line(hosts: list[str]) -> str:
    """Hosts, devices and versions in one line."""
    devices = jax.devices()
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(device.device_kind for device in devices).items())
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    coordinates = [device.coords for device in devices if getattr(device, "coords", None) is not None]
    shape = "x".join(str(max(along) - min(along) + 1) for along in zip(*coordinates, strict=True))
    topology = (f", topology {shape}" if shape else "") + (f", {slices} slices" if slices > 1 else "")
    software = ", ".join(f"{name} {version}" for name, version in versions().items() if version != "not installed")
    return f"{len(hosts)} processes on {', '.join(dict.fromkeys(hosts))}: {kinds}{topology}; {software}"


def _check_platform(platform: str | None) -> None:
    if platform is None:
        return
    found = jax.default_backend()
    if found != platform:
        libtpu = versions()["libtpu"]
        remedy = {
            "tpu": f"see that var_jax[tpu] is installed (libtpu is: {libtpu}) and that no other process holds the TPUs",
            "gpu": "see that var_jax[cuda12] or [cuda13] is installed and that nvidia-smi shows the GPUs",
        }
        raise InputError(
            f"platform '{platform}' was requested, JAX found {found}; "
            f"{remedy.get(platform, 'expected tpu, gpu or cpu')}, or leave --platform out"
        )


def _check_devices(hosts: list[str]) -> None:
    """Raises an InputError unless every process has as many devices of the same kind."""
    own: dict[int, list[str]] = {index: [] for index in range(len(hosts))}
    for device in jax.devices():
        own[device.process_index].append(device.device_kind)
    for index, kinds in own.items():
        if sorted(kinds) != sorted(own[0]):
            describe = lambda index: f"{len(own[index])} {'/'.join(sorted(set(own[index])))} on {hosts[index]}"
            raise InputError(
                f"process 0 has {describe(0)}, process {index} has {describe(index)}; give all of them alike many "
                "devices of one kind"
            )


def at(phase: str, step: int = 0) -> None:
    """Reports where this process is: a phase such as "data", and the step of the training."""
    if _watch is not None:
        _watch.at(phase, step)


def from_first(name: str, make: Callable[[], T]) -> T:
    """Calls `make` in the first process and returns its result, which JSON must be able to hold, in all.

    All processes call this in the same order. An InputError of the first process is raised in all. `name` is a key for
    the coordinator's store.
    """
    if _watch is None:
        return make()
    _shared[name] += 1
    key, store = f"var_jax/first/{name}/{_shared[name]}", _store()
    if jax.process_index() > 0:
        error, value = json.loads(store.blocking_key_value_get(key, _SECONDS_TO_END * 1000))
        if error is not None:
            raise InputError(error)
        return value
    try:
        value = make()
    except InputError as refused:
        store.key_value_set(key, json.dumps([str(refused), None]))
        raise
    store.key_value_set(key, json.dumps([None, value]))
    return value


def from_all(name: str, value: T) -> list[T]:
    """The values of all processes by index, in all; JSON must be able to hold them. All call this in the same order."""
    if _watch is None:
        return [value]
    _shared[name] += 1
    store, key = _store(), f"var_jax/all/{name}/{_shared[name]}"
    store.key_value_set(f"{key}/{jax.process_index()}", json.dumps(value))
    wait = lambda index: json.loads(store.blocking_key_value_get(f"{key}/{index}", _SECONDS_TO_END * 1000))
    return [wait(index) for index in range(jax.process_count())]


def whole(array: jax.Array) -> np.ndarray:
    """All of an array in each process, however it lies; all call this in the same order."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return multihost_utils.process_allgather(array, tiled=True)


def _fail(error: BaseException) -> NoReturn:
    """Ends this process and, by a sentence that names it, all others.

    An error that may come from the death of another process waits until the watch would know of that.
    """
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        code, text = error.code, f"ended with exit code {error.code}"
    elif isinstance(error, InputError):
        code, text = FAILED, " ".join(str(error).split())
    else:
        code, text = LOST, " ".join(f"{type(error).__name__}: {error}".split())[:300]
    if code == LOST or error.__cause__ is not None:
        time.sleep(SILENT_SECONDS + 10)  # if another has died, the watch ends this process meanwhile
        traceback.print_exception(error)
    index, count = _watch.index, len(_watch.hosts)
    _watch.mute()
    sys.stdout.flush()
    print(f"var-jax: process {index} of {count}: {text}", file=sys.stderr, flush=True)
    _watch.fail(f"process {index} ended: {text}", code)
    os._exit(code)  # not through the end of Python, where JAX would wait for the others


def _stopped(*_: Any) -> None:
    """Ends all at SIGTERM, where each piece of work is saved as soon as it is done."""
    index = 0 if _watch is None else _watch.index
    os.write(1, f"process {index}: stopped by SIGTERM: the same command goes on from here\n".encode())
    if _watch is not None:
        _watch.fail(f"process {index} was stopped by SIGTERM: the same command goes on from here", STOPPED)
    os._exit(STOPPED)


def _store() -> Any:
    """The coordinator's key-value store."""
    from jax._src import distributed  # JAX hands it out nowhere else

    return distributed.global_state.client
