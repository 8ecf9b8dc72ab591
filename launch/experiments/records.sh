# shellcheck shell=bash
# shellcheck disable=SC2154
# Builds records of the recipes' sources, for base.sh and fine.sh.
# usage, in a script: run=(PROGRAM) data=FOLDER config=FILE prefix=NAME;
#   source launch/experiments/records.sh

# build NAME --images=... --teacher=... [--flags]: records of one source, whose
# name decides the panels that are drawn.
build() {
  local sum
  sum=$(cksum <<<"$1")
  [ -f "training/records/$prefix$1/build.json" ] ||
    .venv/bin/python -m data_builders.build --config="$config" \
      --config.records.seed="${sum%% *}" \
      --output="training/records/$prefix$1" "${@:2}"
}

# make_study NUMBER UM: simulates a study that is missing, and builds it as if a
# pixel were UM.
make_study() {
  local folder="training/study_$1" kept="[]"
  if [ "$1" -lt 4 ]; then kept="[ROI006]"; fi
  [ -f "$folder/img/ROI006.tiff" ] || "${run[@]}" simulate \
    --output="$folder" --num_images=6 --size_px=400 --seed=$((2000 + $1))
  build "study_$1" --images="$folder/img" --panel="$folder/panel.csv" \
    --teacher="$folder/truth/masks" --pixel_size_um="$2" \
    --config.records.lists.validation="$kept"
}

# build_spleen NAME=UM ...: the spleen, as if a pixel were UM.
build_spleen() {
  local pair spleen="$data/spleen_imc"
  for pair in "$@"; do
    build "${pair%=*}" --images="$spleen/img" --panel="$spleen/panel.csv" \
      --teacher="$spleen/masks" --pixel_size_um="${pair#*=}" \
      --config.records.lists.validation="[ROI024]" \
      --config.records.lists.test="[ROI028, ROI030]"
  done
}
