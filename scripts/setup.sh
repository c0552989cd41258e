#!/usr/bin/env bash
# Makes .venv with the workspace in it. Needs Python 3.11 or 3.12 with venv, and nothing else.
#
#   bash scripts/setup.sh          what training needs
#   bash scripts/setup.sh --dev    and the linters, type checker and test runner
#
# Running it again brings .venv up to date; that takes seconds. Nothing is installed outside .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

groups=(--no-dev)
case "${1:-}" in
"") ;;
--dev) groups=(--group dev) ;;
*)
    echo "setup: unknown argument '$1'; valid: --dev" >&2
    exit 2
    ;;
esac

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; }

find_python() {
    local candidate
    for candidate in python3.11 python3 python3.12; do
        if fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "setup: no Python 3.11 or 3.12 found; python3 is $(python3 --version 2>/dev/null || echo missing)" >&2
    echo "setup: on Debian or Ubuntu: sudo apt install python3.11 python3.11-venv; then run this again" >&2
    exit 1
}

# A venv that was interrupted half-way has a python and no pip; it is made anew.
if ! fits .venv/bin/python || ! .venv/bin/python -c 'import pip' >/dev/null 2>&1; then
    python=$(find_python)
    echo "setup: making .venv with $("$python" --version)" >&2
    "$python" -m venv --clear .venv || {
        echo "setup: $python cannot make a virtual environment; on Debian or Ubuntu: sudo apt install $("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2
        exit 1
    }
fi

[ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'

# --inexact keeps pip, and keeps the dev group when a first run follows a contributor's setup.
VIRTUAL_ENV="$PWD/.venv" UV_PROJECT_ENVIRONMENT="$PWD/.venv" \
    .venv/bin/uv sync --quiet --inexact --all-packages --python "$PWD/.venv/bin/python" "${groups[@]}"
