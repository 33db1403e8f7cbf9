#!/usr/bin/env bash
# Trains on GKE through xpk (github.com/AI-Hypercomputer/xpk), which installs JobSet and Kueue by itself:
#
#   CLUSTER=var NAME=d16 ZONE=us-east5-b TYPE=v5litepod-16 \
#     launch/tpu/xpk.sh [--dry-run] run train --config var:d16 --workdir gs://BUCKET/var_d16 ...
#
#   cluster          makes the cluster with its spot slices, which cost money from then on
#   run COMMAND...   `var-jax COMMAND...` on the cluster's slices, started again after preemptions and crashes
#   list             lists the cluster's runs
#   stop             ends the run; the same `run` resumes it
#   delete           removes the cluster
#
#   CLUSTER, NAME, ZONE, TYPE   of the cluster, of the run, and of the TPUs
#   PROJECT   the cloud project; default gcloud's own
#   SLICES    number of slices; default 1
#   IMAGE     an image made from launch/tpu/Dockerfile; without one, xpk makes it from this clone
#   CACHE     a folder in a bucket for compiled programs; by default they are lost with the container
#   FETCH     a folder in a bucket, such as gs://BUCKET/tokens, that every host copies to data/tokens first
#
# --dry-run prints the command instead.
set -euo pipefail

dry=0
if [[ "${1:-}" == --dry-run ]]; then
  dry=1
  shift
fi
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
: "${CLUSTER:?is the name of the cluster, as you like}" "${ZONE:?is a zone like us-east5-b}"
where=(--cluster "$CLUSTER" --zone "$ZONE" ${PROJECT:+--project "$PROJECT"})

act() {
  if ((dry)); then
    printf '%q ' "$@"
    echo
  else
    exec "$@"
  fi
}

tpus() { : "${TYPE:?is an accelerator type like v5litepod-16}"; }

named() { : "${NAME:?is the name of the run, as you like}"; }

cluster() {
  tpus
  act xpk cluster create "${where[@]}" --tpu-type "$TYPE" --num-slices "${SLICES:-1}" --spot
}

run() {
  tpus
  named
  local image=(--base-docker-image python:3.12 --script-dir .) install='bash launch/host.sh install tpu,gcs && '
  if [[ -n "${IMAGE:-}" ]]; then
    image=(--docker-image "$IMAGE")
    install=''
  fi
  # xpk starts again after 127 to 255 by itself; 75 is a run that was stopped and has saved, 1 one that lost a companion.
  act xpk workload create "${where[@]}" --workload "$NAME" --tpu-type "$TYPE" --num-slices "${SLICES:-1}" "${image[@]}" \
    --max-restarts 1000 --restart-on-exit-codes 1,75 --termination-grace-period-seconds 120 \
    --command "${install}PLATFORM=tpu ${CACHE:+CACHE=${CACHE@Q} }${FETCH:+FETCH=${FETCH@Q} }bash launch/host.sh run$(printf ' %q' "$@")"
}

stop() {
  named
  act xpk workload delete "${where[@]}" --workload "$NAME" --force
}

case "${1:-}" in
  cluster | stop) "$1" ;;
  list) act xpk workload list "${where[@]}" ;;
  delete) act xpk cluster delete "${where[@]}" --force ;;
  run)
    shift
    (($# > 0)) || { echo "$0 run: expected a command after it" >&2 && exit 2; }
    run "$@"
    ;;
  *)
    sed -n '2,/^set /{/^#/p}' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
