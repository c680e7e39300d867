#!/usr/bin/env bash
# Runs the trainer; everything by environment.
set -euo pipefail
: "${LR:=0.05}"
ALPHA="${ALPHA:-1e-4}"
export LR ALPHA
export LOSS=${LOSS:-log_loss}
export EPOCHS=${EPOCHS:-20}
export AVERAGE=${AVERAGE:-0}
export RUN_NAME=${RUN_NAME:-baseline}
export OMP_NUM_THREADS=1
exec python3 "$(dirname "$0")/env_sgd_train.py"
