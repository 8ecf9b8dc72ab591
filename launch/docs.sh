#!/usr/bin/env bash
# Builds the site of docs/ and of the docstrings; warnings are errors.
# Needs no network once installed. Prints where it lies.
# usage: bash launch/docs.sh [FOLDER]   (default: build/docs)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install docs

folder="${1:-build/docs}"
.venv/bin/python -m sphinx -b html -E -W --keep-going -q docs "$folder"
echo "Site: $folder/index.html"
