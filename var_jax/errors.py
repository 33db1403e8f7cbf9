"""The one error that a user's input may cause.

Whatever a user got wrong (a path, a number, a damaged file, a checkpoint of another model) is
raised as `InputError` with one sentence that names the thing, what was expected and the remedy.
The command line prints that sentence and exits with code 2; a notebook sees an ordinary
`ValueError`. Everything else that escapes is a bug of ours and keeps its traceback.
"""


class InputError(ValueError):
    """Bad input, explained in one line."""
