#!/usr/bin/env bash
# Fine-tunes the shipped weights on nuclei that people drew, see
# configs/experiments/gaps.py. Needs the real data and the records that base.sh
# has left in training/. LICENSED_ONLY=1 leaves out intestine_nuclei, which comes
# from an LGPL-3 repository that does not mention its data. Of dsb2018_fluo only
# some images' sizes are trained on; other sizes, so other plates, are kept for
# judging. A call that was stopped goes on where it was.
# usage: bash launch/experiments/gaps.sh [FOLDER]   (default: training/gaps_model)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"
install ""
export PYTHONPATH=.

data="${DICEXMBD_REAL_DATA:-../shared/data}"
run=(.venv/bin/python -m dicexmbd_jax)

# draw NAME SOURCE NUM_DRAWN [SIZE ...]: images around nuclei, and their records.
draw() {
  local folder="training/$1" sum
  sum=$(cksum <<<"$1")
  .venv/bin/python launch/experiments/stain_nuclei.py "$2" "$folder" "${@:3}"
  [ -f "training/records/$1/build.json" ] ||
    .venv/bin/python -m data_builders.build --config=configs/simulated.py \
      --config.records.seed="${sum%% *}" --config.records.num_panels=1 \
      --output="training/records/$1" --images="$folder/img" \
      --teacher="$folder/maps" --pixel_size_um=1.0
}

config=configs/experiments/gaps_free.py workdir=training/gaps_free
if [ -z "${LICENSED_ONLY:-}" ]; then
  config=configs/experiments/gaps.py workdir=training/gaps
  draw intestine "$data/intestine_nuclei/training" 3
fi
draw dsb "$data/dsb2018_fluo" 1 256x256 256x320 260x347 603x1272
"${run[@]}" train --config="$config" --workdir="$workdir" \
  --checkpoint=dicexmbd_jax/weights/base
"${run[@]}" export --checkpoint="$workdir/last" \
  --output="${1:-training/gaps_model}"
