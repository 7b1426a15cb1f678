#!/usr/bin/env bash
# Which backbone learns most, and fastest? MiniLM-L6 fine-tuned; then Mamba, Mamba-2 and BERT of
# about 30M parameters from random starts, on equal tokens, with three seeds. Installs nothing.
#
#   bash scripts/gpu_study.sh prepare --collection data/medquad --data DIR   whole environment
#   bash scripts/gpu_study.sh --data DIR [--part MODEL:SEED ...]   jax, flax and optax: on the GPU
#   bash scripts/gpu_study.sh collect --data DIR                             whole environment
#
# --packed FILE, of both, keeps all results in one file, where few come back from the GPU.
#
# DIR goes from one machine to the other; what is done already is kept. --cpu tries it with toys.
# PYTHON names the interpreter; by default .venv's if there is one, else python3.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)

step=train
if [[ ${1:-} == prepare || ${1:-} == collect ]]; then
  step=$1
  shift
fi
python=${PYTHON:-}
if [[ -z $python ]]; then
  python=python3
  if [[ -x $project/.venv/bin/python ]]; then python=$project/.venv/bin/python; fi
fi
if ! command -v "$python" >/dev/null; then
  echo "error: $python: not found; name an interpreter with PYTHON=..." >&2
  exit 2
fi

needed="jax flax optax numpy jaxtyping"
case $step in
  prepare) needed="$needed tokenizers transformers safetensors bm25s Stemmer ir_measures" ;;
  collect) needed="$needed ir_measures scipy" ;;
esac
missing=$("$python" - $needed <<'PYTHON'
import sys
from importlib.util import find_spec

missing = [name for name in sys.argv[1:] if find_spec(name) is None]
if sys.version_info < (3, 11):
    missing.append("python>=3.11")
print(" ".join(missing))
PYTHON
)
if [[ -n $missing ]]; then
  echo "error: $python lacks: $missing; install them and run this again" >&2
  exit 2
fi

PYTHONPATH=$project${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m "scripts.gpu_study.$step" "$@"
