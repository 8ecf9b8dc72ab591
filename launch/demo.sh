#!/usr/bin/env bash
# From nothing to a report: environment, a simulated study, the main job with
# the shipped model, its score against the simulated truth.
# usage: bash launch/demo.sh [FOLDER]   (default: demo)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install ""

folder="${1:-demo}"
run=(.venv/bin/python -m dicexmbd_jax)

if [ ! -f "$folder/study/truth/masks/ROI006.tiff" ]; then
  "${run[@]}" simulate --output="$folder/study" --num_images=6 --seed=1
fi
"${run[@]}" predict --images="$folder/study/img" \
  --panel="$folder/study/panel.csv" --output="$folder/result"
"${run[@]}" evaluate --predicted="$folder/result/masks" \
  --reference="$folder/study/truth/masks" --output="$folder/scores"

echo
echo "Report: $PWD/$folder/result/report.html"
echo "Scores: $PWD/$folder/scores/report.html"
