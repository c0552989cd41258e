"""`python -m eagleray_serve up|down`: what `eagleray up` and `eagleray down` run."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from eagleray.contract.errors import EaglerayError
from eagleray.settings import load_settings
from eagleray_serve.local.down import down
from eagleray_serve.local.up import Wanted, up
from eagleray_serve.settings import load_http_settings


def main() -> int:
    """One JSON object on standard output, what is going on on standard error; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m eagleray_serve")
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--dashboard-port", type=int)
    parser.add_argument("--num-cpus", type=int)
    parser.add_argument("--num-gpus", type=int)
    parser.add_argument("--new-admin-key", action="store_true")
    options = parser.parse_args()
    try:
        print(json.dumps(_do(options)), flush=True)
    except EaglerayError as error:
        print(json.dumps({"error": {"code": error.code, "message": error.message, "hint": error.hint}}), flush=True)
        return error.exit_code
    return 0


def _do(options: argparse.Namespace) -> dict[str, Any]:
    settings = load_settings()
    if options.action == "down":
        return down(settings, _say)
    load_http_settings()  # refuse a wrong variable before anything starts
    wanted = Wanted(
        host=options.host,
        port=options.port,
        dashboard_port=options.dashboard_port,
        num_cpus=options.num_cpus,
        num_gpus=options.num_gpus,
        new_admin_key=options.new_admin_key,
    )
    return up(wanted, settings, _say)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
