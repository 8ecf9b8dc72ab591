#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU pod slice; the TPU tells JAX who is who.
# Needs: gcloud, logged in; on every host this project in ~/dicexmbd_jax with
# .venv (pip install ".[train,tpu]"), and records and workdir on a file system that
# all hosts mount. Run again after a preemption, it goes on.
# usage: TPU=NAME ZONE=ZONE bash launch/tpu_pod.sh --config=configs/default.py \
#     --workdir=/mnt/shared/run1
#   FOLDER=DIR for another folder on the hosts; DRY_RUN=1 prints the command.
set -euo pipefail

: "${TPU:?expected the name of the TPU}" "${ZONE:?expected its zone}"
# Written here, run by the hosts' shells: every word is quoted once more.
words=$(printf ' %q' .venv/bin/python -m dicexmbd_jax train \
  --coordinator=auto "$@")
${DRY_RUN:+echo} gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" \
  --worker=all --command="cd ${FOLDER:-dicexmbd_jax} &&$words"
