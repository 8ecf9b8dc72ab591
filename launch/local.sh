#!/usr/bin/env bash
# Trains on all devices of this machine, in one process.
# Needs: records that the configuration names; for GPUs, pip install ".[train,gpu]"
# in .venv. Run again after a stop, it goes on.
# usage: bash launch/local.sh --config=configs/default.py --workdir=DIR
#   further words are flags of train; DRY_RUN=1 prints the command.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install ""

run_with exec  # So that SIGTERM reaches Python, which then writes a checkpoint.
run_program train "$@"
