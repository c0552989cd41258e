#!/usr/bin/env bash
# The README's second command: sets up what a contributor needs and runs the tests.
#
#   bash scripts/test.sh                      everything that needs neither a cluster nor a framework's gigabytes
#   bash scripts/test.sh -m cluster           one marked suite; whatever follows goes to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh --dev

# Tests decide for themselves what Ray and eagleray see; a developer's own settings and cluster stay out.
unset RAY_ADDRESS EAGLERAY_HOME EAGLERAY_STORAGE EAGLERAY_BLOCKED_PLUGINS VIRTUAL_ENV
export RAY_USAGE_STATS_ENABLED=0 RAY_ENABLE_UV_RUN_RUNTIME_ENV=0

# A later -m replaces an earlier one, so "$@" may choose another suite.
exec .venv/bin/python -m pytest -q -m "not cluster and not framework and not fault and not slow" "$@"
