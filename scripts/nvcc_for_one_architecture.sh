#!/usr/bin/env bash
# nvcc, without the code for GPU architectures other than NVCC_ARCHITECTURE (e.g. 90): what
# PYTORCH_NVCC names in nvcc's place when scripts/build_mamba_ssm.sh builds. REAL_NVCC is the real one.
set -euo pipefail

arguments=()
while (($#)); do
  if [[ $1 == -gencode && ${2:-} == arch=* ]]; then
    if [[ $2 == *code=sm_$NVCC_ARCHITECTURE ]]; then arguments+=("$1" "$2"); fi
    shift 2
  elif [[ $1 == -gencode=arch=* ]]; then
    if [[ $1 == *code=sm_$NVCC_ARCHITECTURE ]]; then arguments+=("$1"); fi
    shift
  else
    arguments+=("$1")
    shift
  fi
done
exec "$REAL_NVCC" "${arguments[@]}"
