#!/usr/bin/env bash
# Makes the shipped weights from nothing: the first weights; more simulated
# studies and all real sources as records, each under several panels; images
# without masks labelled by the first weights; training on all of it; the
# mean with the first weights; the segmenter's settings; export. Needs the real
# data; see configs/base.py. Parts that are there are not made again.
# usage: bash launch/base.sh [FOLDER]   (default: training/model)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install ""

data="${DICEXMBD_REAL_DATA:-../shared/data}"
first=training/first_weights
run=(.venv/bin/python -m dicexmbd_jax)

if [ ! -f "$first/done" ]; then
  bash launch/first_weights.sh "$first"
  touch "$first/done"
fi

# build NAME --images=... --teacher=... [--flags]: records of one source, whose
# name decides the panels that are drawn.
build() {
  local sum
  sum=$(cksum <<<"$1")
  .venv/bin/python -m data_builders.build --config=configs/base.py \
    --config.records.seed="${sum%% *}" --output="training/records/$1" "${@:2}"
}

# um per pixel that the studies' images are said to have: smaller pixels make
# smaller cells with less noise, larger ones larger and smoother cells.
sizes=(1.0 0.7 1.3 1.0 0.85 0.6 1.0 1.0 0.8 1.6 1.0 2.0 1.0 1.3)
for study in {0..13}; do
  folder="training/new_study_$study"
  kept="[]"
  if [ "$study" -lt 4 ]; then kept="[ROI006]"; fi
  [ -f "$folder/img/ROI006.tiff" ] || "${run[@]}" simulate \
    --output="$folder" --num_images=6 --size_px=400 --seed=$((2000 + study))
  build "new_study_$study" --images="$folder/img" --panel="$folder/panel.csv" \
    --teacher="$folder/truth/masks" --pixel_size_um="${sizes[study]}" \
    --config.records.lists.validation="$kept"
done

spleen="$data/spleen_imc"
for pair in spleen_all_panels=1.0 spleen_small=0.8 spleen_large=1.25 \
  spleen_largest=1.7; do
  build "${pair%=*}" --images="$spleen/img" --panel="$spleen/panel.csv" \
    --teacher="$spleen/masks" --pixel_size_um="${pair#*=}" \
    --config.records.lists.validation="[ROI024]" \
    --config.records.lists.test="[ROI028, ROI030]"
done

# Self-training: the cells that the first weights find in images without masks,
# under the whole panel and in all views.
mkdir -p training/nuclear_imc
.venv/bin/python launch/crop_nuclear.py "$data/nuclear_imc" training/nuclear_imc
study="$data/imc_testdata"
kept="20210305_NE_mockData5_00"
mibi=(--images="$data/mibi_lymph" --panel="$data/mibi_lymph/panel.csv")
label() {
  "${run[@]}" predict --checkpoint="$first" --config.predict.views=8 \
    --output="training/labels/$1" "${@:2}"
}
label mibi_lymph "${mibi[@]}" --pixel_size_um=0.45
# At 1 um per pixel the first weights cut these large nuclei to pieces.
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
# The last weights, not those of the lowest validation loss: these found cells
# worse (F1 on the simulated images 0.861, and 0.888 at the end).
steps=$(find training/base/checkpoints -maxdepth 1 -name '[0-9]*' -printf '%f\n' |
  sort -n | tail -n 1)
.venv/bin/python launch/average_weights.py "$first" \
  "training/base/checkpoints/$steps" training/mean
.venv/bin/python launch/fit_segmenter.py training/mean "$data"
"${run[@]}" export --checkpoint=training/mean --output="${1:-training/model}"
