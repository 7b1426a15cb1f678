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

source scripts/find_python.sh
need jax flax optax numpy jaxtyping

PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m scripts.gpu_check "$@"
