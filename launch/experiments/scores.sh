#!/usr/bin/env bash
# Measures the accuracy tables of the README: a model and the paper's baselines
# on fresh simulated tissue, on the spleen ROIs that were kept aside, and on a
# small study with Ilastik's masks. The last two need the real data. Prints the
# table and leaves it in FOLDER/scores.md.
# usage: bash launch/experiments/scores.sh [FOLDER [MODEL]]   (default: scores, the shipped)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"
install ""

out="${1:-scores}"
model="${2:-dicexmbd_jax/weights/base}"
data="${DICEXMBD_REAL_DATA:-../shared/data}"
run=(.venv/bin/python -m dicexmbd_jax)

for seed in 1 2 3 4; do
  "${run[@]}" simulate --output="$out/study_$seed" --num_images=5 --seed="$seed"
  "${run[@]}" benchmark --checkpoint="$model" --images="$out/study_$seed/img" \
    --panel="$out/study_$seed/panel.csv" \
    --reference="$out/study_$seed/truth/masks" --output="$out/simulated_$seed"
done

if [ -d "$data" ]; then
  mkdir -p "$out/spleen_img"
  for roi in 28 30; do
    cp "$data/spleen_imc/img/ROI0$roi.ome.tiff" "$out/spleen_img/"
  done
  "${run[@]}" benchmark --checkpoint="$model" --images="$out/spleen_img" \
    --panel="$data/spleen_imc/panel.csv" \
    --reference="$data/spleen_imc/masks" --output="$out/spleen"
  "${run[@]}" benchmark --checkpoint="$model" --images="$data/imc_testdata/img" \
    --panel="$data/imc_testdata/panel.csv" \
    --reference="$data/imc_testdata/masks_ilastik" \
    --masks="Mesmer=$data/imc_testdata/masks_deepcell" \
    --output="$out/imc_testdata"
fi
.venv/bin/python launch/experiments/scores_table.py "$out" | tee "$out/scores.md"
