# shellcheck shell=bash
# Sourced by the other scripts: makes .venv and installs what is asked for.
# Quick when everything is there: a stamp holds what was installed last.
# Needs Python 3.11 or newer; PYTHON names another one than python3.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
      2>/dev/null; then
      echo "$candidate"
      return 0
    fi
  done
  echo "found no Python >= 3.11; set PYTHON to one" >&2
  return 1
}

make_environment() {
  local venv="$1" python
  [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version \
    >/dev/null 2>&1 && return 0
  python=$(find_python) || return 1
  rm -rf "$venv"
  if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
    # Debian packs the venv module's pip apart from Python.
    local version
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      echo "Installing python$version-venv ..."
      { apt-get update && apt-get install -y "python$version-venv"; } \
        >/dev/null 2>&1
    fi
    rm -rf "$venv"
    if ! "$python" -m venv "$venv"; then
      echo "found no working venv module; run: apt-get install" \
        "python$version-venv" >&2
      return 1
    fi
  fi
}

# install EXTRA [FOLDER]: "" for the program alone, "dev" for the tests' needs
# too; FOLDER is .venv, or an environment of its own.
install() {
  local extra="$1" venv="${2:-.venv}" stamp sum
  stamp="$venv/installed-${1:-base}"
  [ -z "${DRY_RUN:-}" ] || return 0
  make_environment "$venv" || return 1
  sum=$(cat requirements.txt pyproject.toml | cksum)
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ] && return 0
  echo "Installing into $venv ..."
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    -r requirements.txt || return 1
  if [ -n "$extra" ]; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
      --editable ".[$extra]" || return 1
  fi
  echo "$sum" >"$stamp"
}

# run_with srun --flag ...: what run_program puts in front of the program.
launcher=()
run_with() {
  launcher=("$@")
}

# run_program COMMAND --flag ...: with DRY_RUN=1, prints the line instead.
run_program() {
  local words=(${launcher[@]+"${launcher[@]}"} .venv/bin/python -m
    dicexmbd_jax "$@")
  if [ -n "${DRY_RUN:-}" ]; then
    # In one write: two processes may print at the same time.
    local line
    printf -v line '%q ' "${words[@]}"
    echo "$line"
  else
    "${words[@]}"
  fi
}
