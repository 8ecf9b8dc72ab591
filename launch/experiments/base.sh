#!/usr/bin/env bash
# Makes the shipped weights from nothing: simulated studies, and a network
# trained on them alone; real sources as records, those without masks labelled
# by that network; training on all of it, at last with uneven backgrounds and
# empty fields; export, the segmenter's settings, scores and model card. Needs
# the real data; see configs/simulated.py, base.py and robust.py. A call that was
# stopped goes on where it was.
# usage: bash launch/experiments/base.sh [FOLDER]   (default: training/model)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"
install ""
export PYTHONPATH=.  # For launch/*.py: nothing is installed of this project.

data="${DICEXMBD_REAL_DATA:-../shared/data}"
model="${1:-training/model}"
first=training/simulated
run=(.venv/bin/python -m dicexmbd_jax)

config=configs/simulated.py prefix=
# shellcheck source=launch/experiments/records.sh
source launch/experiments/records.sh

# um per pixel that the studies' images are said to have: smaller pixels make
# smaller cells with less noise, larger ones larger and smoother cells.
sizes=(1.0 0.7 1.3 1.0 0.85 0.6 1.0 1.0 0.8 1.6 1.0 2.0 1.0 1.3 1.0 0.5 1.0 0.75
  1.15 1.0)
for study in {0..18..2}; do
  make_study "$study" "${sizes[$study]}" &
  other=$!
  make_study $((study + 1)) "${sizes[$((study + 1))]}"
  wait "$other"
done
"${run[@]}" train --config=configs/simulated.py --workdir="$first"
# Here and below the last weights, not those of the lowest validation loss,
# which find cells worse.
first+=/last

build_spleen spleen=1.0 spleen_small=0.8 spleen_large=1.25 spleen_largest=1.7

# Self-training: the cells that the first network finds in images without masks,
# under the whole panel and in all views.
mkdir -p training/nuclear_imc
.venv/bin/python launch/experiments/crop_nuclear.py "$data/nuclear_imc" training/nuclear_imc
study="$data/imc_testdata"
kept="20210305_NE_mockData5_00"
mibi=(--images="$data/mibi_lymph" --panel="$data/mibi_lymph/panel.csv")
label() {
  "${run[@]}" predict --checkpoint="$first" --config.predict.views=8 \
    --output="training/labels/$1" "${@:2}"
}
label mibi_lymph "${mibi[@]}" --pixel_size_um=0.45
# These nuclei are large: at 1 um per pixel a network cuts some to pieces.
label nuclear_imc --images=training/nuclear_imc --pixel_size_um=0.65
label imc_testdata --images="$study/img" --panel="$study/panel.csv"
for pair in mibi_lymph=0.45 mibi_lymph_small=0.35 mibi_lymph_large=0.75; do
  build "${pair%=*}" "${mibi[@]}" --teacher=training/labels/mibi_lymph/masks \
    --pixel_size_um="${pair#*=}"
done
for pair in nuclear_imc=1.0 nuclear_imc_small=0.65; do
  build "${pair%=*}" --images=training/nuclear_imc \
    --teacher=training/labels/nuclear_imc/masks --pixel_size_um="${pair#*=}"
done
build imc_testdata --images="$study/img" --panel="$study/panel.csv" \
  --teacher=training/labels/imc_testdata/masks \
  --config.records.lists.validation="[${kept}1, ${kept}2, ${kept}3]"

"${run[@]}" train --config=configs/base.py --checkpoint="$first" \
  --workdir=training/base
"${run[@]}" train --config=configs/robust.py --workdir=training/robust \
  --checkpoint=training/base/last
rm -f "$model/config.json"  # Of an earlier call: export replaces no model.
"${run[@]}" export --checkpoint=training/robust/last --output="$model"
.venv/bin/python launch/experiments/fit_segmenter.py "$model" "$data"
# Scores, also for the model card that export has written.
bash launch/experiments/scores.sh training/scores "$model"
printf '\n## Scores\n\n' | cat - training/scores/scores.md >>"$model/README.md"
