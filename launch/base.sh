#!/usr/bin/env bash
# Makes the candidate for the next weights from nothing: the first weights; more
# simulated studies and all other sources as records; a wider network that labels
# the images without masks; from the first weights on, training on all of it; the
# segmenter's settings. Needs the real data; see configs/base.py and labeller.py.
# Its parts were run one by one, not yet as a whole: training takes 45, 38 and 13
# minutes on two CPU cores.
# usage: bash launch/base.sh [FOLDER]   (default: training/model)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install ""

data="${DICEXMBD_REAL_DATA:-../shared/data}"
records=training/records
run=(.venv/bin/python -m dicexmbd_jax)

bash launch/first_weights.sh training/first_weights

# build NAME --images=... --teacher=... [--flags]: records of one source.
build() {
  .venv/bin/python -m data_builders.build --config=configs/labeller.py \
    --output="$records/$1" "${@:2}"
}

# um per pixel that the studies' images are said to have: smaller pixels make
# smaller cells with less noise, larger ones larger and smoother cells.
sizes=(1.0 0.7 1.3 1.0 0.85 0.6 1.0)
for study in {0..13}; do
  folder="training/new_study_$study"
  kept="[]"
  if [ "$study" -lt 4 ]; then kept="[ROI006]"; fi
  "${run[@]}" simulate --output="$folder" --num_images=6 --size_px=400 \
    --seed=$((2000 + study))
  build "new_study_$study" --images="$folder/img" --panel="$folder/panel.csv" \
    --teacher="$folder/truth/masks" --pixel_size_um="${sizes[study % 7]}" \
    --config.records.lists.validation="$kept"
done

spleen="$data/spleen_imc"
for pair in spleen_small=0.8 spleen_large=1.25; do  # As it is: built above.
  build "${pair%=*}" --images="$spleen/img" --panel="$spleen/panel.csv" \
    --teacher="$spleen/masks" --pixel_size_um="${pair#*=}" \
    --config.records.lists.validation="[ROI024]" \
    --config.records.lists.test="[ROI028, ROI030]"
done
study="$data/imc_testdata"
kept="20210305_NE_mockData5_00"
build imc_testdata --images="$study/img" --panel="$study/panel.csv" \
  --teacher="$study/masks_ilastik" \
  --config.records.lists.validation="[${kept}1, ${kept}2, ${kept}3]"

"${run[@]}" train --config=configs/labeller.py --workdir=training/labeller

# Self-training: the cells that this network finds in images without masks.
mkdir -p training/nuclear_imc
.venv/bin/python launch/crop_nuclear.py "$data/nuclear_imc" training/nuclear_imc
mibi=(--images="$data/mibi_lymph" --panel="$data/mibi_lymph/panel.csv")
label() {
  "${run[@]}" predict --checkpoint=training/labeller \
    --config.predict.views=8 --output="training/labels/$1" "${@:2}"
}
label mibi_lymph "${mibi[@]}" --pixel_size_um=0.45
label nuclear_imc --images=training/nuclear_imc
label imc_testdata --images="$study/img" --panel="$study/panel.csv"
for pair in mibi_lymph=0.45 mibi_lymph_small=0.35; do
  build "${pair%=*}" "${mibi[@]}" --teacher=training/labels/mibi_lymph/masks \
    --pixel_size_um="${pair#*=}"
done
build nuclear_imc --images=training/nuclear_imc \
  --teacher=training/labels/nuclear_imc/masks
build imc_testdata_self --images="$study/img" --panel="$study/panel.csv" \
  --teacher=training/labels/imc_testdata/masks \
  --config.records.lists.validation="[${kept}1, ${kept}2, ${kept}3]"

"${run[@]}" train --config=configs/base.py \
  --checkpoint=training/first_weights --workdir=training/base
.venv/bin/python launch/fit_segmenter.py training/base "$data"
"${run[@]}" export --checkpoint=training/base \
  --output="${1:-training/model}"
