#!/usr/bin/env bash
# Trains on a slice of spot TPUs by the Cloud TPU API: requests it, survives preemptions, gives it back.
#
#   NAME=d16 ZONE=us-west4-a TYPE=v5litepod-16 RUNTIME=v2-alpha-tpuv5-lite \
#     launch/tpu/queued_resource.sh [--dry-run] up train --config var:d16 --workdir gs://BUCKET/var_d16 ...
#
#   up COMMAND...    all steps below for `var-jax COMMAND...`, again after every preemption, until it has finished;
#                    after an interruption, the same command resumes
#   create           requests the slice, unless it exists, and waits for it
#   install          copies this clone to every host and installs it
#   run COMMAND...   starts `var-jax COMMAND...` on every host, unless it is running there already
#   watch            shows the first host's log until the run has ended
#   each LINE        runs a line of shell on every host
#   delete           gives the slice back
#
# Exit code of up and watch: 0 finished; 75 stopped or taken away, start again (watch only); else the run's own. `up`
# ends with another code for bad input (2), or when the run has failed six times.
#
#   NAME, ZONE, TYPE, RUNTIME   of the slice; see `gcloud compute tpus accelerator-types list` and `... versions list`
#   PROJECT      the cloud project; default gcloud's own
#   SLICES       number of such slices that work together; default 1
#   SPOT         0: machines that are not taken away, at their price; default 1
#   CACHE        a folder for compiled programs, preferably in a bucket, where a new slice finds them
#   FETCH        a folder in a bucket, such as gs://BUCKET/tokens, that every host copies to data/tokens first
#   PLATFORM     the kind of devices without which the run stops; default tpu
#   INTERVAL     seconds between checks; default 60
#   KEEP         1: `up` keeps the slice at the end; default 0
#
# --dry-run prints the commands of an undisturbed run instead.
set -euo pipefail

dry=0
if [[ "${1:-}" == --dry-run ]]; then
  dry=1
  shift
fi
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
: "${NAME:?is the name of the slice, as you like}" "${ZONE:?is a zone like us-west4-a}"
where=(--zone "$ZONE" ${PROJECT:+--project "$PROJECT"})
slices="${SLICES:-1}"

say() { printf '== %s\n' "$*" >&2; }

act() {
  if ((dry)); then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

# State of the request: ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED, ..., or NONE.
state() {
  gcloud compute tpus queued-resources describe "$NAME" "${where[@]}" --format 'value(state.state)' 2>/dev/null || echo NONE
}

nodes() {
  local slice
  for ((slice = 0; slice < slices; slice++)); do
    if ((slices == 1)); then echo "$NAME"; else echo "$NAME-$slice"; fi
  done
}

create() {
  : "${TYPE:?is an accelerator type like v5litepod-16}" "${RUNTIME:?is a runtime version like v2-alpha-tpuv5-lite}"
  local now=NONE node=(--node-id "$NAME")
  ((slices == 1)) || node=(--node-count "$slices" --node-prefix "$NAME")
  local spot=(--spot)
  [[ "${SPOT:-1}" == 1 ]] || spot=()
  ((dry)) || now="$(state)"
  if [[ "$now" == NONE ]]; then
    act gcloud compute tpus queued-resources create "$NAME" "${where[@]}" "${node[@]}" \
      --accelerator-type "$TYPE" --runtime-version "$RUNTIME" "${spot[@]}"
  fi
  ((dry)) && return
  until [[ "$now" == ACTIVE ]]; do
    now="$(state)"
    case "$now" in
      ACTIVE) ;;
      SUSPEND* | FAILED | DELETING | NONE) return 75 ;;
      *) sleep "${INTERVAL:-60}" ;;
    esac
    say "$NAME is $now"
  done
}

each() {
  local node
  for node in $(nodes); do
    act gcloud compute tpus tpu-vm ssh "$node" "${where[@]}" --worker all --command "$1" || return
  done
}

install() {
  local archive node
  archive="${TMPDIR:-/tmp}/var_jax-$NAME.tar"
  act git -C "$root" archive --format tar --output "$archive" HEAD || return
  for node in $(nodes); do
    act gcloud compute tpus tpu-vm scp "$archive" "$node:var_jax.tar" "${where[@]}" --worker all || return
  done
  each 'rm -rf var_jax && mkdir var_jax && tar xf var_jax.tar -C var_jax && bash var_jax/launch/host.sh install tpu,gcs'
}

run() {
  each "PLATFORM=${PLATFORM:-tpu} ${CACHE:+CACHE=${CACHE@Q} }${FETCH:+FETCH=${FETCH@Q} }bash var_jax/launch/host.sh start$(printf ' %q' "$@")"
}

watch() {
  local first lines=0 new last misses=0
  first="$(nodes | head -n 1)"
  local look=(gcloud compute tpus tpu-vm ssh "$first" "${where[@]}" --worker 0 --command)
  if ((dry)); then
    act "${look[@]}" 'bash var_jax/launch/host.sh follow 0'
    return
  fi
  while true; do
    if new="$("${look[@]}" "bash var_jax/launch/host.sh follow $lines" 2>/dev/null)"; then
      misses=0
      last="$(tail -n 1 <<<"$new")"
      new="$(sed '$d' <<<"$new")"
      if [[ -n "$new" ]]; then
        printf '%s\n' "$new"
        lines=$((lines + $(wc -l <<<"$new")))
      fi
      case "$last" in
        '== ended '*) return "${last#== ended }" ;;
        '== gone') return 75 ;;
      esac
    elif [[ "$(state)" != ACTIVE ]] || ((++misses > 10)); then
      say "$NAME was taken away, or does not answer"
      return 75
    fi
    sleep "${INTERVAL:-60}"
  done
}

delete() {
  ((dry)) || [[ "$(state)" != NONE ]] || return 0
  act gcloud compute tpus queued-resources delete "$NAME" "${where[@]}" --force --quiet
}

up() {
  local code failures=0
  while true; do
    code=0
    create && install && run "$@" && watch || code=$?
    ((dry)) || case "$code" in
      0 | 2) ;;
      *)
        # A spot machine that was taken away cannot be started again, only requested anew.
        if [[ "$(state)" != ACTIVE ]]; then
          say "$NAME is gone: requesting another"
          delete
          code=75
        else
          say "the run stopped with exit code $code, $NAME still exists: starting it again"
        fi
        if [[ "$code" == 75 ]] || ((++failures <= 5)); then
          sleep "${INTERVAL:-60}"
          continue
        fi
        say "failed $failures times without a preemption"
        ;;
    esac
    [[ "${KEEP:-0}" == 1 ]] || delete
    return "$code"
  done
}

case "${1:-}" in
  create | install | watch | delete) "$1" ;;
  run | up | each)
    (($# > 1)) || { echo "$0 $1: expected a command after it" >&2 && exit 2; }
    "$@"
    ;;
  *)
    sed -n '2,/^set /{/^#/p}' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
