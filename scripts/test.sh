#!/usr/bin/env bash
# Installs what the tests need and runs all checks: format, lint, types, import layers, tests, and,
# in a venv of their own, those of the GPU kernels: they need Python 3.12 or newer, but no GPU.
#   bash scripts/test.sh           the ordinary run
#   bash scripts/test.sh --all     the slow tests too, all compiled as users do
#   bash scripts/test.sh ARGS...   further arguments go to pytest, e.g. tests/ops -k conv
# Paths in tests/kernels go to the kernels' venv, other paths in tests to the ordinary one. Options go
# to both; those with a path as value are written with "=", as in --deselect=tests/x.py::test_y.
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

# Both venvs get all options, and of the paths their own; without a path, all tests.
options=() paths=() kernel_paths=() is_all=false
for argument in "$@"; do
  case "$argument" in
    tests | tests/ | ./tests | ./tests/) is_all=true ;;
    tests/kernels* | ./tests/kernels*) kernel_paths+=("$argument") ;;
    tests/* | ./tests/*) paths+=("$argument") ;;
    *) options+=("$argument") ;;
  esac
done
if $is_all || { [ ${#paths[@]} = 0 ] && [ ${#kernel_paths[@]} = 0 ]; }; then
  paths=(tests --ignore=tests/kernels)
  # A whole training step is exported with both versions of JAX.
  kernel_paths=(tests/kernels tests/test_export.py)
fi

# run_tests VENV ARGS...: in two processes, since most of the time goes into compilation, which uses
# one core.
run_tests() {
  "$1/bin/python" -m pytest -n 2 --durations=25 --durations-min=0.5 "${@:2}" \
    ${options[@]+"${options[@]}"}  # bash before 4.4 takes an empty array for an unset one
}

# Options may leave none of the kernels' tests, which is pytest's exit status 5.
run_kernel_tests() {
  run_tests .venv-kernels "${kernel_paths[@]}" || [ $? = 5 ]
}

not_run=""
if [ ${#paths[@]} != 0 ]; then
  step "tests (pytest)" run_tests .venv --dist loadfile "${paths[@]}"
fi
if [ ${#kernel_paths[@]} != 0 ]; then
  status=0
  bash scripts/setup.sh kernels || status=$?
  case "$status" in
    0) step "kernels (interpreted, compiled for the H200)" run_kernel_tests ;;
    3) not_run="NOT RUN: the kernels' tests; without a GPU they need Linux and Python 3.12 or newer" ;;
    *) exit "$status" ;;
  esac
fi

echo
echo "All checks passed:"
printf '  %s\n' "${durations[@]}"
if [ -n "$not_run" ]; then echo "$not_run"; fi
