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
source "$(dirname "$0")/find_python.sh"

step=train
if [[ ${1:-} == prepare || ${1:-} == collect ]]; then
  step=$1
  shift
fi
needed=(jax flax optax numpy jaxtyping)
case $step in
  prepare) needed+=(tokenizers transformers safetensors bm25s Stemmer ir_measures) ;;
  collect) needed+=(ir_measures scipy) ;;
esac
need "${needed[@]}"

PYTHONPATH=$project${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m "scripts.gpu_study.$step" "$@"
