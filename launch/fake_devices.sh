#!/usr/bin/env bash
# Trains on 8 virtual CPU devices: what many devices do, without having them.
# Needs: records that the configuration names. No faster than one device.
# usage: bash launch/fake_devices.sh --config=configs/tiny.py --workdir=DIR
#   NUM_DEVICES=4 for another number; DRY_RUN=1 prints the command.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install ""

export JAX_PLATFORMS=cpu
export XLA_FLAGS="--xla_force_host_platform_device_count=${NUM_DEVICES:-8}"
run_with exec  # So that SIGTERM reaches Python, which then writes a checkpoint.
run_program train "$@"
