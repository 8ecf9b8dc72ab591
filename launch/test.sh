#!/usr/bin/env bash
# Installs what the tests need and runs the checks: style, types, tests.
# usage: bash launch/test.sh [--all] [pytest arguments]
#   --all runs the tests marked slow too.
set -euo pipefail
chosen=(-m "not slow")
if [ "${1:-}" = --all ]; then
  chosen=()
  shift
fi
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install dev

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# A file stays with one process: its tests share what they compile.
.venv/bin/python -m pytest --numprocesses 2 --dist loadfile \
  ${chosen[@]+"${chosen[@]}"} "$@"
