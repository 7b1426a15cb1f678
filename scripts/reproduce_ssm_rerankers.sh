#!/usr/bin/env bash
# A setting of "State Space Models are Strong Text Rerankers" from the official files, in one command.
# Says at once all that is missing and where it is obtained, the plan and its cost; does each step
# once; killed anywhere, the same command goes on. docs/reproducing.md has the rest.
#   bash scripts/reproduce_ssm_rerankers.sh MODEL --setting passage|document|longp|beir
#     [--negatives_run RUN] [--data DIR] [--output DIR] [--first_stage lucene|bm25|own]
#     [--sets NAME ...] [--plan] [-- options of python -m jaxrank.train]
#   bash scripts/reproduce_ssm_rerankers.sh --help
# PYTHON names another interpreter than that of .venv. Exit status: 0 done; 2 bad input, or
# something is missing; 75 stopped at a training step, and the same command goes on; 130 Ctrl-C.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"
if ! command -v "$python" >/dev/null; then
  echo "error: no $python; make it with: bash scripts/setup.sh [gpu]" >&2
  exit 2
fi
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m scripts.reproduction ssm-rerankers "$@"
