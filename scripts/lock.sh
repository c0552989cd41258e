#!/bin/sh
# Writes the locked requirements of every framework that has any, as they are shipped in the wheels.
#
#   scripts/lock.sh            write the locks
#   scripts/lock.sh --check    exit 1 where a committed lock differs from what would be written
#
# A lock holds the core's dependencies too, Ray above all, because the core travels to a worker as code, not as a package.
# The workspace itself is left out, and so is every index address: the user's own mirror is honoured at build time.
set -eu
cd "$(dirname "$0")/.."

uv=$(command -v uv || echo .venv/bin/uv)
check=${1:-}
stale=0

lock() { # package extra target
    fresh=$(mktemp)
    "$uv" export --quiet --package "$1" --extra "$2" --no-dev --no-emit-workspace --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --format requirements-txt >"$fresh"
    if [ "$check" = --check ]; then
        cmp -s "$fresh" "$3" || { echo "$3 is stale; run scripts/lock.sh" >&2; stale=1; }
        rm -f "$fresh"
    else
        mkdir -p "$(dirname "$3")"
        cat "$fresh" >"$3"
        rm -f "$fresh"
        echo "$3: $(grep -c == "$3") packages"
    fi
}

lock eagleray echo core/src/eagleray/testing/locks/echo.txt
lock eagleray-timm runtime plugins/timm/src/eagleray_timm/locks/runtime.txt
lock eagleray-huggingface runtime plugins/huggingface/src/eagleray_huggingface/locks/runtime.txt
lock eagleray-ultralytics runtime plugins/ultralytics/src/eagleray_ultralytics/locks/runtime.txt
exit "$stale"
