#!/usr/bin/env bash
# Runs on a training machine, for the scripts in tpu/ and gpu/ and for a pod's container.
#
#   host.sh install [EXTRAS]   installs this package and a new enough Python into a virtual environment; default tpu,gcs
#   host.sh run COMMAND...     runs var-jax COMMAND..., together with the other hosts if there are any
#   host.sh start COMMAND...   the same, detached from the terminal, unless it is running already
#   host.sh follow [LINES]     prints the log after its first LINES lines, then: running, ended CODE, or gone
#
#   VENV       the virtual environment; default ~/venv
#   PLATFORM   the kind of devices (tpu, gpu, cpu) without which the command stops; default any
#   CACHE      a folder, here or in a bucket, for compiled programs; default ~/.cache/var_jax/xla
#   FETCH      a folder in a bucket, such as gs://BUCKET/tokens, that is copied to data/tokens first, once
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${VENV:-$HOME/venv}"
# jax 0.10 and later use port 8482 on TPUs, which the cloud's own firewall rule blocks; the rule opens 8476.
export JAX_COORDINATOR_PORT="${JAX_COORDINATOR_PORT:-8476}"
export PYTHONUNBUFFERED=1 # or a killed process loses its last lines

install() {
  local extras="${1:-tpu,gcs}"
  if [[ "$(cat "$venv/installed" 2>/dev/null)" == "$extras $(cd "$root" && cat setup.py launch/requirements.txt | cksum)" ]]; then
    echo "== $venv is up to date"
  else
    # The images have Python 3.10, too old for jax: uv fetches a newer one.
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --python 3.12 --clear "$venv"
    (cd "$root" && python3 -m uv pip install --quiet --python "$venv/bin/python" \
      --requirement launch/requirements.txt ".[$extras]")
    echo "$extras $(cd "$root" && cat setup.py launch/requirements.txt | cksum)" >"$venv/installed"
  fi
  "$venv/bin/var-jax" --version
}

fetch() {
  local name="${1%/}"
  name="${name##*/}"
  [[ ! -e "data/$name.fetched" ]] || return 0
  mkdir -p data
  "$venv/bin/python" -c 'import sys, fsspec; fsspec.filesystem("gcs").get(*sys.argv[1:], recursive=True)' \
    "${1%/}/" "data/$name/"
  touch "data/$name.fetched"
}

run() {
  local command="$1"
  shift
  [[ -z "${FETCH:-}" ]] || fetch "$FETCH"
  exec "$venv/bin/var-jax" "$command" --processes auto ${PLATFORM:+--platform "$PLATFORM"} \
    --compile-cache "${CACHE:-$HOME/.cache/var_jax/xla}" "$@"
}

alive() { [[ -e ~/run.pid ]] && kill -0 "$(cat ~/run.pid)" 2>/dev/null; }

start() {
  if alive; then
    echo "== runs already (process $(cat ~/run.pid))"
    return
  fi
  rm -f ~/run.exit
  # shellcheck disable=SC2016 # $0 and $@ are the inner shell's
  nohup setsid bash -c 'bash "$0" run "$@"; echo $? >~/run.exit' "$root/launch/host.sh" "$@" >>~/run.log 2>&1 </dev/null &
  echo $! >~/run.pid
  echo "== started (process $!)"
}

follow() {
  tail -n "+$((${1:-0} + 1))" ~/run.log 2>/dev/null || true
  if [[ -e ~/run.exit ]]; then
    echo "== ended $(cat ~/run.exit)"
  elif alive; then
    echo "== running"
  else
    echo "== gone"
  fi
}

case "${1:-}" in
  install | run | start | follow) "$@" ;;
  *)
    sed -n '2,/^set /{/^#/p}' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
