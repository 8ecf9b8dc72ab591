#!/usr/bin/env bash
# Installs what the tests need and runs every check: style, types, tests.
# usage: bash launch/test.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install dev

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# A file stays with one process: its tests share what they compile.
.venv/bin/python -m pytest --numprocesses 2 --dist loadfile "$@"
