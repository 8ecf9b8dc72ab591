#!/usr/bin/env bash
# Runs docs/neighbours/ and the tests of convert with the libraries that the
# results are for, in an environment of its own: .venv-neighbours.
# usage: bash launch/neighbours.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv-neighbours/bin/python
[ -x "$python" ] || "${PYTHON:-python3}" -m venv .venv-neighbours
"$python" -m pip install --quiet pytest beartype hypothesis \
  squidpy spatialdata-io napari-ome-zarr -e '.[spatialdata,viewer]'
# No code of the pages is left out for a library that is missing.
DICEXMBD_ALL_NEIGHBOURS=1 "$python" -m pytest tests/test_neighbours.py \
  tests/commands/test_convert_command.py "$@"
