#!/usr/bin/env bash
# What docs/benchmarks.md says of a GPU, measured in one go of at most ten minutes:
#
#   MNIST_DATA_DIR=... benchmarks/gpu.sh [FOLDER]
#
# FOLDER, by default outputs/benchmark-gpu, gets the output and results.json of each part. Each training takes TIME
# seconds, 45 by default.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
folder=$(realpath -m "${1:-outputs/benchmark-gpu}") python=.venv/bin/python
: "${MNIST_DATA_DIR:?is not set: the folder with MNIST}" "${TIME:=45}"
mkdir -p "$folder"
ends=$((SECONDS + 600))

# part NAME COMMAND...
part() {
    local name=$1 left=$((ends - SECONDS))
    shift
    echo "== $name"
    timeout "$((left > 1 ? left : 1))" "$@" 2>"$folder/$name.err" | tee "$folder/$name.txt"
}
train() {
    part "$1" $python benchmarks/training.py --seconds "$TIME" --output "$folder/$1" "${@:2}"
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo "no GPU: these numbers are a CPU's"
part update $python benchmarks/step.py --preset gpu --rounds 1
# The recipe; the second time what XLA compiled the first time is there.
export TF_XLA_FLAGS="--tf_xla_persistent_cache_directory=$folder/xla"
train gpu --preset gpu --only ours --at 10 15 20 25 30
train gpu-compiled --preset gpu --only ours --at 10 15 20 25 30
unset TF_XLA_FLAGS
# Is the arithmetic of bfloat16 worse? What do larger batches make of the same time?
train float32 --preset gpu --only ours --set train.precision=float32
train batch-1024 --preset gpu --only ours --set train.batch_size=1024
train dcgan --only dcgan
