#!/usr/bin/env bash
# Measures one accelerator in one call of under 9 minutes: training steps, MFU,
# memory, prediction per megapixel, PyTorch beside it where it is installed.
# One JSON line each.
# Needs: this checkout, Python >= 3.11 and, on a machine without a network, a
# folder of wheels made elsewhere for the same Python:
#   python -m pip download -d wheels ".[train,gpu]"
# usage: WHEELS=wheels bash tests/benchmarks/bench_accelerator.sh [--tiny]
# PYTHON names a Python that has all of it already; then nothing is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
start=$SECONDS
python="${PYTHON:-.venv_accelerator/bin/python}"
if [ -z "${PYTHON:-}" ] && [ ! -x "$python" ]; then
  # Packages that the machine has, PyTorch among them, stay visible.
  python3 -m venv --system-site-packages .venv_accelerator
  if [ -n "${WHEELS:-}" ]; then
    sources=(--no-index --find-links "$WHEELS")
  else
    sources=()
  fi
  "$python" -m pip install --quiet ${sources[@]+"${sources[@]}"} \
    "setuptools>=77" ".[train,gpu]" >&2
fi
export PYTHONPATH="$PWD:$PWD/tests/benchmarks" XLA_PYTHON_CLIENT_PREALLOCATE=false
exec "$python" tests/benchmarks/bench_accelerator.py \
  --seconds=$((480 - SECONDS + start)) "$@"
