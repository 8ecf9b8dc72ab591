#!/usr/bin/env bash
# Damages small files of every format at random and reads them, for an hour.
# usage: bash launch/fuzz.sh [seconds] [seed]
# The same seed damages in the same ways. Prints what must not be (tracebacks,
# hangs, memory) as it is found, and the table of outcomes at the end.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install dev

PYTHONPATH=.:tests .venv/bin/python tests/fuzz/fuzz_driver.py \
  --seconds="${1:-3600}" --seed="${2:-$(date +%Y%m%d)}"
