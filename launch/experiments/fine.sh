#!/usr/bin/env bash
# Fine-tunes the shipped weights to half the pixel size, see
# configs/experiments/fine.py. Needs the real data. A call that was stopped goes
# on where it was.
# usage: bash launch/experiments/fine.sh [FOLDER]   (default: training/fine_model)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"
install ""
export PYTHONPATH=.

data="${DICEXMBD_REAL_DATA:-../shared/data}"
config=configs/experiments/fine.py
run=(.venv/bin/python -m dicexmbd_jax)

prefix=fine_
# shellcheck source=launch/experiments/records.sh
source launch/experiments/records.sh

# um per pixel that images are said to have: smaller pixels make smaller cells.
sizes=(0.93 0.65 1.2 0.93 0.79 0.55 0.93 0.93 0.75 1.45 0.93 1.6)
for study in "${!sizes[@]}"; do
  make_study "$study" "${sizes[$study]}"
done
build_spleen spleen=0.93 spleen_small=0.73 spleen_large=1.2

mkdir -p training/nuclear_imc
.venv/bin/python launch/experiments/crop_nuclear.py "$data/nuclear_imc" training/nuclear_imc
mibi=(--images="$data/mibi_lymph" --panel="$data/mibi_lymph/panel.csv")
"${run[@]}" predict --output=training/labels/fine_mibi "${mibi[@]}" \
  --pixel_size_um=0.45
"${run[@]}" predict --output=training/labels/fine_nuclear --pixel_size_um=1.0 \
  --images=training/nuclear_imc
for pair in mibi_lymph=0.42 mibi_lymph_large=0.55; do
  build "${pair%=*}" "${mibi[@]}" --pixel_size_um="${pair#*=}" \
    --teacher=training/labels/fine_mibi/masks
done
build nuclear_imc --images=training/nuclear_imc --pixel_size_um=0.75 \
  --teacher=training/labels/fine_nuclear/masks
# Nuclei that people drew.
stain() {
  .venv/bin/python launch/experiments/stain_nuclei.py "$data/$2" "training/$1" 0.5 "${@:3}"
  build "$1" --images="training/$1/img" --teacher="training/$1/maps" \
    --pixel_size_um=0.5 --config.records.num_panels=1
}
stain dsb dsb2018_fluo 256x256 256x320 260x347 603x1272
stain intestine intestine_nuclei/training

"${run[@]}" train --config="$config" --workdir=training/fine \
  --checkpoint=dicexmbd_jax/weights/base
rm -f "${1:-training/fine_model}/config.json"  # export replaces no model.
"${run[@]}" export --checkpoint=training/fine/last \
  --output="${1:-training/fine_model}"
