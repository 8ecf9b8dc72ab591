#!/usr/bin/env bash
# Makes the first shipped weights again: eight simulated studies and the spleen
# ROIs of the real data (see configs/first_weights.py), their records, then
# training. About 6 minutes to simulate and 45 to train on two CPU cores.
# usage: bash launch/first_weights.sh [FOLDER]   (default: training/model)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install ""

run=(.venv/bin/python -m dicexmbd_jax)
build=(.venv/bin/python -m data_builders.build
  --config=configs/first_weights.py)
for study in 0 1 2 3 4 5 6 7; do
  folder="training/study_$study"
  [ -f "$folder/img/ROI008.tiff" ] || "${run[@]}" simulate \
    --output="$folder" --num_images=8 --size_px=400 --seed=$((1000 + study))
  kept="[]"
  if [ "$study" -lt 3 ]; then kept="[ROI008]"; fi
  "${build[@]}" --images="$folder/img" --panel="$folder/panel.csv" \
    --teacher="$folder/truth/masks" --output="training/records/study_$study" \
    --config.records.lists.validation="$kept"
done
spleen="${DICEXMBD_REAL_DATA:-../shared/data}/spleen_imc"
"${build[@]}" --images="$spleen/img" --panel="$spleen/panel.csv" \
  --teacher="$spleen/masks" --output=training/records/spleen \
  --config.records.lists.validation="[ROI024]" \
  --config.records.lists.test="[ROI028, ROI030]"
"${run[@]}" train --config=configs/first_weights.py --workdir=training/first
"${run[@]}" train --config=configs/first_weights_tune.py \
  --checkpoint=training/first --workdir="${1:-training/model}"
