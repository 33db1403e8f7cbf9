"""A process that reads damaged files under limits: `python -m tests.fuzz.reading FOLDER FORMAT FIRST COUNT`.

It prints a line of JSON before each case, and one with the result after it; a case that takes more than ten seconds of
processor time, or a crash, ends it in between.
"""

from __future__ import annotations

import hashlib
import json
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from tests.formats.hostile_files import _most_megabytes
from tests.fuzz.formats import FORMATS
from tests.fuzz.mutations import damaged, damaged_json

SECONDS, ADDRESS_SPACE = 10, 2 << 30  # of one case; bytes beyond those after a first reading


def digest(value: Any) -> Any:
    """What two readings are compared by."""
    if isinstance(value, dict):
        return {str(key): digest(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return [value.dtype.str, value.shape, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    return value


def main(folder: Path, name: str, first: int, count: int) -> None:
    from var_jax.errors import InputError

    kind, whole = FORMATS[name], folder / "whole" / name
    whole.parent.mkdir(parents=True)
    kind.write(whole)
    expected = digest(kind.read(whole))
    limit = ADDRESS_SPACE + int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    place = folder / name
    for case in range(first, first + count):
        draw = random.Random(f"{name} {case}")
        shutil.rmtree(place, ignore_errors=True)
        place.unlink(missing_ok=True)
        file = place
        if kind.damages:
            shutil.copytree(whole, place)
            file = place / kind.damages[case % len(kind.damages)]
        content = (whole / file.name if kind.damages else whole).read_bytes()
        file.unlink(missing_ok=True)  # not written over: arrays of the last case may be mapped
        file.write_bytes((damaged_json if file.suffix == ".json" else damaged)(content, draw))
        print(json.dumps({"case": f"{name} {case}"}), flush=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # beyond which the process ends
        start = time.process_time()
        try:
            same = digest(kind.read(place)) == expected
            result = "same" if same else "wrong" if kind.sealed else "other"
        except InputError as error:
            result = "refused" if "\n" not in str(error) and len(str(error)) < 2000 else f"long: {error}"
        except BaseException:
            result = f"traceback: {traceback.format_exc(limit=-4)}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        spent = time.process_time() - start
        print(json.dumps({"result": result, "seconds": spent, "megabytes": _most_megabytes()}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
