#!/usr/bin/env bash
# Trains with two real processes on this machine, over loopback, each with 4
# virtual CPU devices: what two machines do, without having them.
# Needs: records that the configuration names, and a free port.
# usage: bash launch/two_processes.sh --config=configs/tiny.py --workdir=DIR
#   PORT=12345 for a port of your choice, NUM_DEVICES=1 for devices of each;
#   DRY_RUN=1 prints the commands.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install ""

export JAX_PLATFORMS=cpu
export XLA_FLAGS="--xla_force_host_platform_device_count=${NUM_DEVICES:-4}"
port="${PORT:-$((20000 + RANDOM % 10000))}"

run_process() {
  local index="$1"
  shift
  run_program train --coordinator="localhost:$port" --num_processes=2 \
    --process_id="$index" "$@"
}

# `exec`: the signal below is to reach Python itself.
(run_with exec && run_process 1 "$@") &
other=$!
# Whatever ends this script ends the other process; Ctrl-C reaches both.
trap 'kill -TERM "$other" 2>/dev/null || true' EXIT TERM
run_process 0 "$@"
wait "$other"
