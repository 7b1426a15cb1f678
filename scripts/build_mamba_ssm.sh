#!/usr/bin/env bash
# Builds wheels of mamba_ssm and causal_conv1d from their source distributions, ahead of measuring
# beside them. For one GPU architecture only: all that their setup.py lists would take ten times as
# long. Installs nothing.
#
#   bash scripts/build_mamba_ssm.sh [--output DIR] [--arch 90] [--jobs N] [--sources DIR] [--dry-run]
#
# --sources DIR holds their .tar.gz where no package index can be reached; else pip downloads them.
# Needs PyTorch with CUDA, nvcc of the same major version, ninja, and pip, setuptools and wheel.
# PYTHON names the interpreter, by default .venv's if there is one, else python3. Then:
# pip install --no-deps DIR/*.whl
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
source "$here/find_python.sh"
output=build/mamba_ssm
arch=90
jobs=$(nproc 2>/dev/null || echo 4)
sources=
dry_run=false
packages="causal_conv1d mamba_ssm"

fail() {
  echo "error: $*" >&2
  exit 2
}

while (($#)); do
  case $1 in
    --dry-run) dry_run=true; shift; continue ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --output | --arch | --jobs | --sources) ;;
    *) fail "$1: unknown option; known are --output, --arch, --jobs, --sources, --dry-run" ;;
  esac
  (($# > 1)) || fail "$1: a value is needed"
  case $1 in
    --output) output=$2 ;;
    --arch) arch=$2 ;;
    --jobs) jobs=$2 ;;
    --sources) sources=$2 ;;
  esac
  shift 2
done
[[ $arch =~ ^[0-9]{2,3}$ ]] || fail "--arch: $arch; a number such as 90 is needed"
[[ $jobs =~ ^[1-9][0-9]*$ ]] || fail "--jobs: $jobs; a number is needed"

# What is missing, in one line.
missing=()
nvcc=${CUDA_HOME:+$CUDA_HOME/bin/nvcc}
nvcc=${nvcc:-$(command -v nvcc || true)}
[[ -n $nvcc && -x $nvcc ]] || missing+=("nvcc (on the PATH, or under CUDA_HOME)")
command -v ninja >/dev/null || missing+=("ninja")
found=$("$python" - <<'PYTHON'
import runpy
from importlib.util import find_spec
from pathlib import Path

needed = ("pip", "setuptools", "wheel", "packaging", "torch")
missing = [name for name in needed if find_spec(name) is None]
if "torch" not in missing:  # its version alone, since importing it takes long
    version = runpy.run_path(str(Path(find_spec("torch").origin).with_name("version.py")))
    if version["cuda"] is None:
        missing.append("PyTorch built with CUDA (the one here is for CPUs)")
print("\n".join(missing))
PYTHON
)
if [[ -n $found ]]; then mapfile -t -O "${#missing[@]}" missing <<<"$found"; fi
if [[ -n $sources ]]; then
  for package in $packages; do
    compgen -G "$sources/$package-*.tar.gz" >/dev/null || missing+=("$sources/$package-*.tar.gz")
  done
fi
if ((${#missing[@]})); then
  printf -v joined '%s; ' "${missing[@]}"
  if ! $dry_run; then fail "$python: missing: ${joined%; }"; fi
  echo "missing here: ${joined%; }"
fi

# Without these, setup.py looks for wheels on the web, or builds none.
export CAUSAL_CONV1D_FORCE_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE
export MAX_JOBS=$jobs

run() {
  echo "$ $*"
  if ! $dry_run; then "$@"; fi
}

# Both setup.py name their architectures themselves, which makes PyTorch ignore TORCH_CUDA_ARCH_LIST.
# PyTorch calls what PYTORCH_NVCC names in nvcc's place, if it builds with ninja.
export PYTORCH_NVCC=$here/nvcc_for_one_architecture.sh
export REAL_NVCC=${nvcc:-nvcc} NVCC_ARCHITECTURE=$arch

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [[ -z $sources ]]; then
  sources=$work/sources
  # Reading their metadata runs setup.py, which wants nvcc unless it is told to build nothing.
  run env CAUSAL_CONV1D_SKIP_CUDA_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE "$python" -m pip download \
    --no-deps --no-build-isolation --no-binary causal-conv1d,mamba-ssm --dest "$sources" \
    causal-conv1d mamba-ssm
fi
for package in $packages; do
  archive=$(compgen -G "$sources/$package-*.tar.gz" | sort | tail -1 || true)
  run "$python" -m pip wheel --no-deps --no-build-isolation --no-cache-dir --wheel-dir "$output" \
    "${archive:-$sources/$package-*.tar.gz}"
done
if ! $dry_run; then ls -l "$output"/*.whl; fi
