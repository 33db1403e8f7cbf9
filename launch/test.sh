#!/usr/bin/env bash
# From a bare Python 3.11 or newer to the tests' verdict:
#
#   launch/test.sh [--all] [pytest arguments]      such as  launch/test.sh tests/test_pyramid.py -n 0
#
# Installs the pinned requirements and this package into .venv (only when they changed), then runs
# the linter, the formatter's check and pytest: every test of behaviour, in less than ten minutes on
# two cores. `--all` adds the campaigns, which run whole programs for long: kills, many processes,
# distribution, notebook, browser, sweeps, the TPU's compiler. Nothing outside the clone is touched.
#
#   PYTHON          the interpreter to use; python3 if that is new enough, else the newest found
#   REQUIREMENTS    the pinned set; launch/requirements-test.txt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/environment.sh
source launch/environment.sh

environment "${REQUIREMENTS:-launch/requirements-test.txt}"

say "ruff check"
.venv/bin/ruff check .
say "ruff format --check"
.venv/bin/ruff format --check .
say "mypy"
.venv/bin/mypy

if [[ "${1:-}" == --all ]]; then
  shift
else
  set -- --no-campaigns "$@"
fi
workers="$(.venv/bin/python -c 'import os; print(min(os.cpu_count() or 1, 4))')"
say "pytest -n $workers $*"
# A test that hangs is ended and named, with what each of its threads was doing; all others go on.
exec .venv/bin/python -m pytest -n "$workers" --dist worksteal --durations 25 --timeout 900 --timeout-method thread "$@"
