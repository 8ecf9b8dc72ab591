#!/usr/bin/env bash
# Distillation from strokes to a network, a line per step, on the spleen ROIs
# of the real data: strokes (simulated) -> teacher -> records -> U-Net -> masks,
# and both scored on ROIs 28 and 30, which none of the steps before has read.
# ROI 24 gets no strokes: its maps are what the training is validated with.
# usage: bash launch/experiments/distill.sh [FOLDER]   (default: distill)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"
install ""

out="${1:-distill}"
data="${DICEXMBD_REAL_DATA:-../shared/data}/spleen_imc"
python=.venv/bin/python
run=("$python" -m dicexmbd_jax)
panel="$data/panel.csv"

mkdir -p "$out"/{img,masks,unseen_img,unseen_masks}
for roi in 006 008 010 014 016 018 020 022; do
  cp "$data/img/ROI$roi.ome.tiff" "$out/img/"
  cp "$data/masks/ROI$roi.tiff" "$out/masks/"
done
cp "$data/img/ROI024.ome.tiff" "$out/img/"
for roi in 028 030; do
  cp "$data/img/ROI$roi.ome.tiff" "$out/unseen_img/"
  cp "$data/masks/ROI$roi.tiff" "$out/unseen_masks/"
done

# Strokes: 300 pixels an image.
[ -d "$out/strokes" ] || PYTHONPATH=. "$python" \
  launch/experiments/simulate_annotator.py \
  --reference="$out/masks" --output="$out/strokes" --budget_px=2400
# Teacher, at twice the scale, since these cells are small.
"${run[@]}" teach fit --images="$out/img" --panel="$panel" \
  --annotations="$out/strokes" --output="$out/teacher" --scale=2
"${run[@]}" teach predict --teacher="$out/teacher" --images="$out/img" \
  --panel="$panel" --output="$out/maps"
# Records.
"$python" -m data_builders.build --config=configs/distill.py \
  --images="$out/img" --teacher="$out/maps/probabilities" --panel="$panel" \
  --output="$out/records"
# U-Net.
"${run[@]}" train --config=configs/distill.py --workdir="$out/student" \
  --config.train.data.spleen.path="$out/records"
# Masks, of both, in the same way.
"${run[@]}" predict --checkpoint="$out/student" --images="$out/unseen_img" \
  --panel="$panel" --output="$out/student_unseen"
"${run[@]}" teach predict --teacher="$out/teacher" \
  --images="$out/unseen_img" --panel="$panel" --output="$out/teacher_unseen"
"${run[@]}" segment --probabilities="$out/teacher_unseen/probabilities" \
  --output="$out/teacher_unseen_masks" --config.segment.preset=touching \
  --config.segment.map_scale=2
# Scores.
"${run[@]}" evaluate --predicted="teacher=$out/teacher_unseen_masks" \
  --predicted="student=$out/student_unseen" --reference="$out/unseen_masks" \
  --images="$out/unseen_img" --panel="$panel" --output="$out/scores"
