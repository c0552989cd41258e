#!/usr/bin/env bash
# The README's first command: sets up, makes a small dataset of real pixels, and trains yolo11n on it on this machine.
#
#   bash scripts/first-run.sh                 the defaults below
#   bash scripts/first-run.sh --epochs 10     whatever follows goes to `eagleray train` and wins over the defaults
#
# The Ray that the training starts ends with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh

dataset=data/digits
if [ ! -f "$dataset/data.yaml" ]; then
    # Made beside and moved, so an interrupted run leaves no half dataset behind.
    rm -rf "$dataset.partial"
    mkdir -p data
    PATH="$PWD/.venv/bin:$PATH" bash examples/make_dataset.sh "$dataset.partial"
    mv "$dataset.partial" "$dataset"
fi

# No official weights travel with a package, so the run starts from scratch and asks no network for any.
exec .venv/bin/eagleray train --framework ultralytics --model yolo11n --data "$dataset" \
    --epochs 2 --batch-size 16 --set pretrained=false "$@"
