#!/usr/bin/env bash
# What a source costs that was left out of training: trains the shipped recipe
# without the spleen, and on spleen alone, and scores both, the first half of
# the recipe (no real image at all) and the whole on the images that are
# reported. Needs the real data, and launch/base.sh and launch/scores.sh before.
# usage: bash launch/left_out.sh [STEPS [FOLDER]]   (default: 1500 left_out)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install ""
export PYTHONPATH=.  # For launch/*.py: nothing is installed of this project.

steps="${1:-1500}"
out="${2:-training/left_out}"
run=(.venv/bin/python -m dicexmbd_jax)
first=$(last_checkpoint training/simulated)

# leave_out NAME...: flags that give these records no weight.
leave_out() {
  printf -- '--config.train.data.%s.weight=0 ' "$@"
}

train() {
  "${run[@]}" train --config=configs/base.py --workdir="$out/$1" \
    --config.train.num_steps="$steps" --config.train.eval_steps="$steps" "${@:2}"
}
read -ra no_spleen < <(leave_out spleen{,_small,_large,_largest})
# What the simulated network labelled knows simulated tissue, so it goes too.
read -ra no_simulated < <(leave_out study_{0..19} \
  {mibi_lymph,nuclear_imc}{,_small} mibi_lymph_large imc_testdata)
train no_spleen --checkpoint="$first" "${no_spleen[@]}"
train no_simulated --config.train.learning_rate=3e-3 "${no_simulated[@]}"

.venv/bin/python launch/left_out.py "${DICEXMBD_REAL_DATA:-../shared/data}" \
  scores "all sources=dicexmbd_jax/weights/base" \
  "no real image=$first" \
  "no spleen=$(last_checkpoint "$out/no_spleen")" \
  "no simulated tissue=$(last_checkpoint "$out/no_simulated")"
