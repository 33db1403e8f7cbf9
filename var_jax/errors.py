"""`InputError`, the one error that a user's input may cause, and names of any kind made fit to print.

Bad input of any kind (a path, a number, a damaged file, a checkpoint of another model) raises
`InputError` with one sentence that names the thing, what was expected and the remedy. The command
line prints that sentence and exits with code 2; a notebook sees an ordinary `ValueError`. Any other
exception is a bug in var_jax and keeps its traceback.
"""

from __future__ import annotations

import re

# Control characters, ends of lines, marks that turn the direction of writing.
_CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_LONGEST = 2000  # characters of a message, which a value from a damaged file may fill
_BYTES = "\ud800-\udfff"  # how Python holds what is not UTF-8 in the name of a file


class InputError(ValueError):
    """Bad input, explained in one line; of a very long one the middle is left out."""

    def __init__(self, message: str) -> None:
        long = len(message) > _LONGEST
        super().__init__(f"{message[: _LONGEST - 300]} ... {message[-300:]}" if long else message)


def printable(text: str) -> str:
    """The text as one line that neither moves a terminal's cursor nor fails to encode: odd characters as escapes."""
    return re.sub(f"[{_CONTROL}{_BYTES}]", lambda found: ascii(found[0])[1:-1], text)


def has_control(text: str) -> bool:
    """Whether a name holds a character that does something to a terminal instead of being shown."""
    return re.search(f"[{_CONTROL}]", text) is not None
