#!/bin/bash
# Trains on several nodes under Slurm, and requeues itself until the run has ended:
#
#     sbatch --nodes=16 training/launch/slurm.sh --size 950m --data /shared/data --out /shared/runs
#
# The arguments are those of training/train.py. --data and --out lie on a disk that every node sees.
#SBATCH --job-name=mobilelm
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.log
# Three minutes before the time limit this script (not the training) is told, see below.
#SBATCH --signal=B:USR1@180
set -u

GPUS=${GPUS_PER_NODE:-8}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT GPUS

# At the time limit: ask the training to save and end, then put the job back into the queue. On preemption Slurm sends
# SIGTERM to the training itself and requeues the job; the launcher then leaves 30 seconds for the save, and a save cut
# short costs the steps since the last checkpoint, never the run.
again=0
trap 'again=1; scancel --signal=TERM "$SLURM_JOB_ID"' USR1

srun --kill-on-bad-exit=1 bash -c '
  exec composer --nproc "$GPUS" --world_size $((SLURM_NNODES * GPUS)) \
    --node_rank "$SLURM_NODEID" --base_rank $((SLURM_NODEID * GPUS)) \
    --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" \
    training/train.py "$@"' train "$@" &
step=$!
# A trapped signal ends `wait` early.
while wait "$step"; code=$?; kill -0 "$step" 2>/dev/null; do :; done

if [ "$again" = 1 ] && [ "$code" = 0 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
