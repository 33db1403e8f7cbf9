"""Forks processes that have imported everything already, which is most of what a process of a test costs.

Reads requests from its input and answers each with a line, both JSON: {"do": "start", "call", "argv", "log", "devices"}
with the process's id, {"do": "ended", "process"} with its exit code, null while it runs.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types

import jax
import tensorboardX  # noqa: F401  as below
from jax._src import compiler

import var_jax.cli.sample
import var_jax.cli.tokenize
import var_jax.cli.train  # noqa: F401  to be there in every fork


def main() -> int:
    """Serves until its input ends; a fork comes back from here with what its call has returned."""
    ended: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "start":
            process = os.fork()
            if process == 0:
                return _called(request)
            answer = process
        else:
            process = request["process"]
            if process not in ended:
                found, status = os.waitpid(process, os.WNOHANG)
                if found:
                    ended[process] = os.waitstatus_to_exitcode(status)
            answer = ended.get(process)
        print(json.dumps(answer), flush=True)
    return 0


def _called(request: dict) -> int:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(file, number)
    jax.config.update("jax_num_cpu_devices", request["devices"])
    # JAX lets only process 0 write to the compile cache, but programs of CPUs have other keys in every process.
    compiler.distributed = types.SimpleNamespace(global_state=types.SimpleNamespace(process_id=0, client=None))
    module, _, name = request["call"].partition(":")
    return getattr(importlib.import_module(module), name)(request["argv"])


if __name__ == "__main__":
    sys.exit(main())
