#!/usr/bin/env bash
# Installs what the tests need and runs all checks: format, lint, types, import layers, tests.
#   bash scripts/test.sh           the ordinary run
#   bash scripts/test.sh --all     the slow tests too
#   bash scripts/test.sh ARGS...   further arguments go to pytest, e.g. tests/ops -k conv
set -euo pipefail
cd "$(dirname "$0")/.."

bash scripts/setup.sh test
bin=.venv/bin

step() {
  local begin=$SECONDS
  "${@:2}"
  durations+=("$(printf '%5d s  %s' $((SECONDS - begin)) "$1")")
}

durations=()
step "format (ruff)" $bin/ruff format --check --quiet .
step "lint (ruff)" $bin/ruff check --quiet .
step "types (mypy)" $bin/mypy --no-error-summary
step "layers (import-linter)" $bin/lint-imports --no-cache
# Two processes, since most of the time goes into compilation, which uses one core.
step "tests (pytest)" $bin/python -m pytest -n 2 --dist loadfile \
  --durations=25 --durations-min=0.5 "$@"

echo
echo "All checks passed:"
printf '  %s\n' "${durations[@]}"
