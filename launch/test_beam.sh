#!/usr/bin/env bash
# Tests the Beam pipeline in an environment of its own, .venv-beam, since Beam
# takes older versions of libraries that the rest shares.
# usage: bash launch/test_beam.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install beam .venv-beam
.venv-beam/bin/python -m pip install --quiet --disable-pip-version-check \
  hypothesis pytest

.venv-beam/bin/python -m pytest -rs tests/data_builders/test_build_beam.py "$@"
