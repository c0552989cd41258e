"""Where errors become output: one sentence, what to do about it, and an exit code."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from eagleray.cli.output import while_it_is_read
from eagleray.contract.errors import EaglerayError
from eagleray.settings import load_settings

INTERRUPTED = 130
# Click's root of usage errors. Newer releases of typer carry their own click, so it has no import path common to all.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[2]


def run_command(command: Callable[[], object], *, as_json: bool) -> int:
    """Run `command` and turn what it raises into output; the exit code.

    Args:
        as_json: errors go to standard output as `{"error": {"code", "message", "hint"}}`.
    """
    try:
        return _outcome(command, as_json=as_json)
    finally:
        with while_it_is_read():
            pass  # but what is printed already


def _outcome(command: Callable[[], object], *, as_json: bool) -> int:
    try:
        result = command()
        # Outside its standalone mode typer returns an Exit's code.
        return result if isinstance(result, int) and not isinstance(result, bool) else 0
    except typer.Exit as error:
        return error.exit_code
    except EaglerayError as error:
        _show(error.code, error.message, error.hint, as_json=as_json)
        return error.exit_code
    except USAGE_ERROR as error:
        return _usage(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        _show("interrupted", "Interrupted.", "", as_json=as_json)
        return INTERRUPTED
    except BrokenPipeError:
        return 1
    except Exception as error:
        return _unexpected(error, as_json=as_json)


def _usage(error: Any, *, as_json: bool) -> int:
    # Without any arguments typer "fails" with the help text as its message.
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return int(error.exit_code)
    context = getattr(error, "ctx", None)
    hint = f"Try: {context.command_path} --help" if context is not None else ""
    _show("usage", error.format_message(), hint, as_json=as_json)
    return int(error.exit_code)


def _unexpected(error: Exception, *, as_json: bool) -> int:
    what = " ".join(f"{type(error).__name__}: {error}".split())
    if os.environ.get("EAGLERAY_DEBUG") == "1":
        traceback.print_exception(error)
        _show("internal", f"Unexpected {what}", "", as_json=as_json)
        return 1
    try:
        hint = f"The traceback is in {_save_crash(error)}; please report it."
    except OSError:
        hint = "See the traceback: EAGLERAY_DEBUG=1"
    _show("internal", f"Unexpected {what}", hint, as_json=as_json)
    return 1


def _save_crash(error: Exception) -> Path:
    folder = load_settings().home / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return path


def _show(code: str, message: str, hint: str, *, as_json: bool) -> None:
    if as_json:
        with while_it_is_read():
            print(json.dumps({"error": {"code": code, "message": message, "hint": hint}}, ensure_ascii=False))
        return
    print(f"error: {message}" + (f"\n  {hint}" if hint else ""), file=sys.stderr, flush=True)
