#!/usr/bin/env bash
# Sourced by the other scripts here: makes a virtual environment with a tested set of packages.
#
#   environment REQUIREMENTS [WIDER ...]   makes .venv from the first file, unless .venv was made from one of these files
#
#   PYTHON   the interpreter; default: python3 if new enough, else the newest one found
#
# Nothing outside the clone is touched.
set -euo pipefail

say() { printf '== %s\n' "$*"; }

_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

_find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if _new_enough "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  echo "$0: needs Python 3.11 or newer, which '${PYTHON:-python3}' is not; set PYTHON to one" >&2
  return 1
}

# Everything that an installation depends on: if any of it changes, .venv is made anew.
_wanted() { echo "$PWD $("$1" -VV) $2 $(cat launch/requirements*.txt setup.py | cksum)"; }

environment() {
  local python requirements pip
  python="$(_find_python)"
  for requirements in "$@"; do
    if [[ "$(cat .venv/installed 2>/dev/null)" == "$(_wanted "$python" "$requirements")" ]]; then
      say "using .venv as installed"
      return
    fi
  done
  requirements="$1"
  say "installing $requirements into .venv ($("$python" --version))"
  "$python" -m venv --clear .venv
  pip=(.venv/bin/python -m pip -qq --disable-pip-version-check)
  "${pip[@]}" install --requirement "$requirements"
  "${pip[@]}" install --no-deps --no-build-isolation --editable .
  _wanted "$python" "$requirements" >.venv/installed
}
