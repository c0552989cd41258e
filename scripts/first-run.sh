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

# No official weights travel with a package, so the run starts from scratch and asks no network for any. From scratch on
# 128 pictures the defaults, made for large sets, learn nothing in minutes; these settings reach an mAP50 above 0.8.
exec .venv/bin/eagleray train --framework ultralytics --model yolo11n --data "$dataset" --no-pretrained \
    --epochs 12 --batch-size 8 --set imgsz=160 --set optimizer=AdamW --set lr0=0.005 --set nbs=8 \
    --set warmup_epochs=0.5 --set mosaic=0 --set fliplr=0 --set scale=0.2 "$@"
