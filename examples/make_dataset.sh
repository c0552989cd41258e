#!/bin/sh
# Makes the example dataset: make_dataset.sh OUT [options of make_dataset.py].
# The four pinned packages go, without their own dependencies, into a folder that is removed again.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
bin=${EAGLERAY_BIN:-$here/../.venv/bin}
if [ ! -x "$bin/uv" ]; then
    echo "make_dataset.sh: no uv in $bin. Set the project up first (see README.md), or name a folder that holds uv and python by EAGLERAY_BIN." >&2
    exit 2
fi
packages=$(mktemp -d "${TMPDIR:-/tmp}/eagleray-example.XXXXXX")
trap 'rm -rf "$packages"' EXIT
trap 'exit 130' INT TERM
"$bin/uv" pip install --quiet --no-deps --python "$bin/python" --target "$packages" -r "$here/requirements.txt"
PYTHONPATH="$packages" "$bin/python" "$here/make_dataset.py" "$@"
