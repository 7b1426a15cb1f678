#!/usr/bin/env bash
# Checks jaxrank on an NVIDIA GPU in about ten minutes: correctness first, on inputs drawn anew, then
# speed and memory. Installs nothing; says what it misses. Results go to benchmarks/results/, those
# of --cpu to build/.
#
#   bash scripts/gpu_check.sh [--only NAME ...] [--skip-benchmarks] [--seed N] [--minutes N]
#   bash scripts/gpu_check.sh --cpu        the same checks at toy sizes, without a GPU
#
# PYTHON names the interpreter; by default .venv's if there is one, else python3.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-}
if [[ -z $python ]]; then
  python=python3
  if [[ -x .venv/bin/python ]]; then python=.venv/bin/python; fi
fi
if ! command -v "$python" >/dev/null; then
  echo "error: $python: not found; name an interpreter with PYTHON=..." >&2
  exit 2
fi

missing=$("$python" - <<'PYTHON'
import sys
from importlib.util import find_spec

needed = ("jax", "flax", "optax", "numpy", "jaxtyping")
missing = [name for name in needed if find_spec(name) is None]
if sys.version_info < (3, 11):
    missing.append("python>=3.11")
print(" ".join(missing))
PYTHON
)
if [[ -n $missing ]]; then
  echo "error: $python lacks: $missing; install them and run this again" >&2
  exit 2
fi

PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m scripts.gpu_check "$@"
