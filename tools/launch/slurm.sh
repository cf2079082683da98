#!/usr/bin/env bash
# Trains on the GPUs of several nodes with SLURM, one process per GPU:
#   sbatch tools/launch/slurm.sh configs/reds.py runs/reds
# SLURM tells JAX who the processes are. Two minutes before the time is over, and when the job is preempted, every process
# gets SIGTERM, saves and ends with 143; the job is then queued again and goes on where it stopped.
#SBATCH --job-name=b2b_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -uo pipefail

config=${1:?"usage: sbatch tools/launch/slurm.sh CONFIG WORKDIR [--config.KEY=VALUE ...]"}
workdir=${2:?"no WORKDIR, a folder that all nodes share"}
shift 2

# Since Slurm 22.05 a step does not inherit --cpus-per-task.
srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    python -m b2b_jax.main --config "$config" --workdir "$workdir" "$@"
code=$?
if [[ $code -eq 143 ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
