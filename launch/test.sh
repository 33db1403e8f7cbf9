#!/usr/bin/env bash
# From a bare Python 3.11 or newer to the tests' verdict:
#
#   launch/test.sh [pytest arguments]      such as  launch/test.sh tests/test_pyramid.py -n 0
#
# Installs the pinned requirements and this package into .venv (only when they changed), then runs
# the linter, the formatter's check and pytest. Nothing outside the clone is touched.
#
#   PYTHON          the interpreter to use; python3 if that is new enough, else the newest found
#   REQUIREMENTS    the pinned set; launch/requirements-test.txt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

requirements="${REQUIREMENTS:-launch/requirements-test.txt}"

say() { printf '== %s\n' "$*"; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if new_enough "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  echo "launch/test.sh: needs Python 3.11 or newer and found none as '${PYTHON:-python3}'; set PYTHON to one" >&2
  return 1
}

python="$(find_python)"
# What an installation depends on: where any of it changed, .venv is made anew.
wanted="$PWD $("$python" -VV) $requirements $(cat launch/requirements-*.txt setup.py | cksum)"

if [[ "$(cat .venv/installed 2>/dev/null)" == "$wanted" ]]; then
  say "using .venv as installed"
else
  say "installing $requirements into .venv ($("$python" --version))"
  "$python" -m venv --clear .venv
  pip=(.venv/bin/python -m pip -qq --disable-pip-version-check)
  "${pip[@]}" install --requirement "$requirements"
  "${pip[@]}" install --no-deps --no-build-isolation --editable .
  echo "$wanted" >.venv/installed
fi

say "ruff check"
.venv/bin/ruff check .
say "ruff format --check"
.venv/bin/ruff format --check .

workers="$(.venv/bin/python -c 'import os; print(min(os.cpu_count() or 1, 4))')"
say "pytest -n $workers $*"
exec .venv/bin/python -m pytest -n "$workers" "$@"
