#!/usr/bin/env bash
# Makes the throughput study: training pairs/s and peak memory of the ~130M, ~370M and >700M (LoRA)
# models at 512 to 8,192 tokens, and scoring pairs/s; a table, a JSON and a figure for each group.
#
#   bash scripts/bench_throughput.sh [--groups 130m 370m 700m] [--lengths 512 ...] [--minutes 9]
#                                    [--against scripts.pytorch_rivals] [--output DIR]
#                                    [--packed FILE]   all parts' results in one file, and back
#   bash scripts/bench_throughput.sh --toy      the same at toy sizes, on a CPU, in about a minute
#
# Every model and length is a process of its own, under 8 minutes, with a JSON of its own: the same
# command again goes on where an earlier one was ended. Installs nothing; PYTHON names the
# interpreter, by default .venv's if there is one, else python3.
set -euo pipefail
cd "$(dirname "$0")/.."

source scripts/find_python.sh
need jax flax optax numpy jaxtyping

PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m scripts.bench_throughput "$@"
