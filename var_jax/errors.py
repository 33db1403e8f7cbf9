"""`InputError`, the one error that a user's input may cause.

Bad input of any kind (a path, a number, a damaged file, a checkpoint of another model) raises
`InputError` with one sentence that names the thing, what was expected and the remedy. The command
line prints that sentence and exits with code 2; a notebook sees an ordinary `ValueError`. Any other
exception is a bug in var_jax and keeps its traceback.
"""


class InputError(ValueError):
    """Bad input, explained in one line."""
