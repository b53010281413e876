#!/bin/bash
#SBATCH --job-name=editsafety
#SBATCH --array=1-16
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue

# sbatch --export=ALL,MODEL=...,HARD=...,NORMAL=...,RUN=reports/mine docs/ci/slurm.sh
# Then: editsafety merge "$RUN"/part-* -o "$RUN/whole"
# A job that is queued again goes on where it was, since its folder is named after its part.
export HF_HUB_OFFLINE=1
editsafety run --model "$MODEL" --editor rome --editor memit --hard "$HARD" --normal "$NORMAL" \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" -o "$RUN/part-$SLURM_ARRAY_TASK_ID" --report-only --quiet
