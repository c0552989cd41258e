#!/usr/bin/env bash
# What a commit does not wait for: faults, load and everything else that takes more than a minute.
#
#   bash scripts/nightly.sh                     all of it: some 30 minutes on two quiet cores
#   bash scripts/nightly.sh tests/test_load_*   these
#
# EAGLERAY_TEST_KILLS    how often writers and workers are killed (each test has a default of its own)
# EAGLERAY_TEST_WRITES   up to which write or sync of a command one fails (200)
# EAGLERAY_TEST_SEED     repeats a run of random kills; the test prints the one that it took
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Failing writes (F21) come from libfiu, F23 needs a PostgreSQL; without them those tests are skipped, and say so.
wanted=()
command -v fiu-run >/dev/null || wanted+=(fiu-utils)
compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null || wanted+=(postgresql)
if [ ${#wanted[@]} -gt 0 ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq "${wanted[@]}" || echo "not installed: ${wanted[*]}; their tests are skipped"
fi
# Every cluster is the only one while it runs, so nothing here runs side by side.
exec bash scripts/test.sh -m "(slow or fault) and not framework" --durations=20 "$@"
