#!/usr/bin/env bash
# Trains on GPUs under Slurm, on one node or several, and goes on by itself after a preemption.
#
#   sbatch --nodes=2 --gpus-per-node=8 scripts/launch_slurm.sh --config configs/....yaml [options]
#
# One process a GPU: JAX gives each the GPU of its number on the node, so every task must see all of
# the node's GPUs (--gpu-bind=none), and the work of the host (tokenising, padding) is spread over
# as many processes. JAX finds the first node and a port from Slurm's variables.
#
# Before it takes the nodes away, Slurm sends SIGTERM to the processes (TERM@120: two minutes
# before). They agree on a step, save a checkpoint there and end with status 75; the job then goes
# back into the queue and the same command goes on. So it does when a process was lost.
# `training.output` must be on a file system that all nodes see.
#
#SBATCH --job-name=jaxrank
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=jaxrank-%j.log
set -euo pipefail

if [[ -z ${SLURM_JOB_ID:-} || $# -eq 0 ]]; then
  echo "usage: sbatch [--nodes=N --ntasks-per-node=G --gpus-per-node=G] $0 --config FILE ..." >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}"
python=${PYTHON:-.venv/bin/python}

# This shell waits for the processes to end, also where Slurm signals it with them.
trap : TERM

# Once the job is back from the queue, its own run is what it must not write over.
restarted=()
[[ ${SLURM_RESTART_COUNT:-0} -eq 0 ]] || restarted=(--training.overwrite false)

status=0
srun --kill-on-bad-exit=0 --gpu-bind=none "$python" -m jaxrank.train "$@" "${restarted[@]}" || status=$?

# 75: stopped when asked to, or a process was lost; the same command goes on from a checkpoint.
if [[ $status -eq 75 && ${SLURM_RESTART_COUNT:-0} -lt ${MAX_RESTARTS:-100} ]]; then
  echo "$0: the training goes back into the queue" >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
