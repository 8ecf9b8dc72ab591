#!/usr/bin/env bash
# Makes the first shipped weights again: eight simulated studies and the spleen
# ROIs of the real data (see configs/first_weights.py), then training.
# About 6 minutes to simulate and 45 to train on two CPU cores.
# usage: bash launch/first_weights.sh [FOLDER]   (default: training/model)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install ""

run=(.venv/bin/python -m dicexmbd_jax)
for study in 0 1 2 3 4 5 6 7; do
  "${run[@]}" simulate --output="training/study_$study" --num_images=8 \
    --size_px=400 --seed=$((1000 + study))
done
"${run[@]}" train --config=configs/first_weights.py --workdir=training/first
"${run[@]}" train --config=configs/first_weights_tune.py \
  --checkpoint=training/first --workdir="${1:-training/model}"
