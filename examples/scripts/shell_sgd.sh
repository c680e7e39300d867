#!/usr/bin/env bash
# Style: a shell script that calls a Python script. An old call, kept as a note: python shell_sgd.py --eta0 5 --dropout 0.3
set -euo pipefail
cd "$(dirname "$0")"

ALPHA=${ALPHA:-1e-4}     # from the environment, or this
ETA0=0.05
NAME="sgd-$(date +%s)"
SEED=3

echo "alpha $ALPHA --l1-ratio 0.9 is only printed"
python shell_sgd.py \
    --alpha "$ALPHA" \
    --eta0 "$ETA0" \
    --penalty elasticnet \
    --l1-ratio=0.2 \
    --max-iter 50 \
    --run-name "$NAME" \
    --seed $SEED "$@"
