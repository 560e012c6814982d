#!/bin/sh
# Train published rows side by side on one GPU, with JAX and without TensorFlow; docs/clusters.md says more.
#
#   profiles/gpu.sh DATA [RUN...]
#
# DATA is the folder of images, or "phantom"; without a RUN, the first seed of each of the nine published rows is trained.
# The environment may set PROFILE (paper), RUNS (runs), AT_ONCE (3 trainings at a time) and LOGS (build/<profile>/gpu).
# Given again, it goes on from the last whole epoch of each run.
set -eu
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

data=$1
shift
PROFILE=${PROFILE:-paper}
LOGS=${LOGS:-build/$PROFILE/gpu}
export KERAS_BACKEND=jax
# Products in TF32, sums in float32; a GPU without TF32 ignores it.
export JAX_DEFAULT_MATMUL_PRECISION=tensorfloat32
# Each training takes the memory that it needs, not three quarters of the GPU.
export XLA_PYTHON_CLIENT_PREALLOCATE=false

if [ $# -eq 0 ]; then
    set -- $(python - "$PROFILE" <<'PYTHON'
import sys

from busi.config import read_profile
from busi.study import find_groups

groups = find_groups(read_profile(sys.argv[1], seeds=[0]))
runs = [config for name, group in groups.items() if name.startswith("published/") for config in group.configs]
print(*dict.fromkeys(config.label for config in runs))
PYTHON
    )
fi

mkdir -p "$LOGS"
# A failed training does not keep the others from their turn; xargs then ends with an error.
printf '%s\n' "$@" | xargs -P "${AT_ONCE:-3}" -I RUN sh -c '
    log=$1/$(echo "$2" | tr / -).log
    echo "$2: $log"
    busi train "$2" -f "params/$3.yaml" -p data_dir="$4" -p runs_dir="$5" >>"$log" 2>&1 || { echo "$2: failed" >&2; exit 1; }
' train "$LOGS" RUN "$PROFILE" "$data" "${RUNS:-runs}"
