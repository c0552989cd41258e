"""The listing commands, and the edge where errors become output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from eagleray import __version__
from eagleray.cli import plugins
from eagleray.cli.app import main
from eagleray.cli.edge import run_command
from eagleray.contract import Environment, Framework, PluginError, StorageError
from eagleray.environments.lock import environment_name, read_lock
from eagleray.environments.ready import write_marker
from eagleray.plugins.host import Catalogue, PluginFramework
from eagleray.testing.echo import FRAMEWORK as ECHO

HEAVY = ("ray", "torch", "numpy", "PIL", "ultralytics", "timm", "transformers", "rich", "eagleray.testing.echo_adapter")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EAGLERAY_HOME", str(tmp_path))
    monkeypatch.delenv("EAGLERAY_BLOCKED_PLUGINS", raising=False)
    monkeypatch.delenv("EAGLERAY_DEBUG", raising=False)
    return tmp_path


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", [["plugins", "list"], ["models", "list"]])
def test_listing_imports_neither_ray_nor_any_framework(command: list[str]) -> None:
    script = f"import sys; from eagleray.cli.app import main; main({command}); print('MODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = done.stdout.rpartition("MODULES")[2].split()
    assert "eagleray.plugins.host" in modules
    assert not set(HEAVY) & set(modules)


def test_frameworks_are_listed_with_their_licence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "list"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["FRAMEWORK", "VERSION", "LICENCE"]
    assert any(line.split()[:3] == ["echo", __version__, "Apache-2.0"] for line in lines)


def test_a_blocked_plugin_is_said_to_be(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLERAY_BLOCKED_PLUGINS", "echo")
    listing = output_of(capsys, "plugins", "list", "--json")
    assert listing["blocked"] == ["echo"]
    assert "echo" not in [found["name"] for found in listing["frameworks"]]


def test_a_framework_shows_what_it_cannot_do_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output_of(capsys, "plugins", "show", "echo", "--json")
    assert shown["capabilities"]["auto_batch_size"]["available"] is False
    assert shown["capabilities"]["auto_batch_size"]["reason"]
    assert shown["capabilities"]["resume"]["available"] is True


def test_the_doctor_finds_nothing_wrong_with_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plugins", "doctor", "--json"])
    assert json.loads(capsys.readouterr().out)["faults"]["echo"] == []


def offer(monkeypatch: pytest.MonkeyPatch, framework: Framework) -> None:
    offered = PluginFramework(framework, "somebodys-plugin", "1", "somebodys")
    monkeypatch.setattr(plugins, "discover", lambda settings: Catalogue({framework.name: offered}))


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ("ray==1.0.0 --hash=sha256:" + 64 * "0", "pins ray 1.0.0"),
        ("numpy>=1", "Line 1 of the lock somebodys:lock.txt is not a pinned requirement"),
        (None, "somebodys:lock.txt cannot be read"),
    ],
    ids=["another Ray", "no pin", "no file"],
)
def test_the_doctor_finds_a_lock_from_which_no_environment_can_be_built(
    lock: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "somebodys").mkdir()
    if lock is not None:
        (tmp_path / "somebodys" / "lock.txt").write_text(lock)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "somebodys", raising=False)
    offer(monkeypatch, replace(ECHO, environment=Environment(lock="somebodys:lock.txt")))
    assert main(["plugins", "doctor"]) == PluginError.exit_code
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("state", ["not built", "unfinished", "ready"])
def test_the_doctor_says_whether_an_environment_is_there_and_how_to_build_it(
    state: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(monkeypatch, ECHO)
    path = home / "envs" / environment_name(read_lock(ECHO.environment.lock))
    if state != "not built":
        (path / "bin").mkdir(parents=True)
    if state == "ready":
        (path / "bin" / "python").symlink_to(sys.executable)
        write_marker(path, read_lock(ECHO.environment.lock), imported=True)
    assert main(["plugins", "doctor"]) == 0
    shown = capsys.readouterr().out
    assert f"  environment {state}: {path}" in shown
    assert ("eagleray envs build echo" in shown) is (state != "ready")
    assert output_of(capsys, "plugins", "doctor", "--json")["environments"]["echo"]["state"] == state


def test_models_are_filtered(capsys: pytest.CaptureFixture[str]) -> None:
    found = output_of(capsys, "models", "list", "--framework", "echo", "--task", "detect", "--json")
    assert [(card["name"], card["task"]) for card in found] == [("echo-linear", "object-detection")]


def test_a_model_is_shown_with_the_schema_of_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    shown = output_of(capsys, "models", "show", "echo-linear", "--task", "detect", "--json")
    assert shown["task"] == "object-detection"
    assert shown["config_schema"] == output_of(capsys, "models", "show", "echo-linear", "--schema")
    assert "momentum" in shown["config_schema"]["properties"]


def test_an_unknown_name_is_one_sentence_with_a_way_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "echo-liner"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: Unknown model 'echo-liner'.\n  Did you mean 'echo-linear'?")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["plugins", "show", "ecko"], "unknown-name"), (["plugins", "list", "--jsn"], "usage"), (["plugin"], "usage")],
)
def test_errors_are_json_for_machines(capsys: pytest.CaptureFixture[str], arguments: list[str], code: str) -> None:
    assert main([*arguments, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == code
    assert error["message"] and error["hint"]


def test_the_exit_code_is_the_errors_own(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise StorageError("The disk is full.", "Free some.")

    assert run_command(fail, as_json=False) == StorageError.exit_code
    assert capsys.readouterr().err == "error: The disk is full.\n  Free some.\n"


@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt(), 130), (typer.Exit(7), 7), (typer.Abort(), 130)])
def test_other_ends_have_their_exit_codes(raised: BaseException, code: int) -> None:
    def end() -> None:
        raise raised

    assert run_command(end, as_json=False) == code


def test_a_crash_is_a_sentence_that_names_the_saved_traceback(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert run_command(lambda: 1 // 0, as_json=False) == 1
    error = capsys.readouterr().err
    (saved,) = (home / "logs").glob("crash-*.txt")
    assert str(saved) in error and "Traceback" not in error
    assert "Traceback" in saved.read_text()


def test_debug_prints_the_traceback_and_saves_nothing(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EAGLERAY_DEBUG", "1")
    assert run_command(lambda: 1 // 0, as_json=False) == 1
    assert "Traceback" in capsys.readouterr().err
    assert not (home / "logs").exists()


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"eagleray {__version__}"


def test_a_reader_that_goes_away_is_no_crash(home: Path) -> None:
    script = "import sys; from eagleray.cli.app import main; sys.exit(main(['models', 'list', '--json']))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == ""
    assert not (home / "logs").exists()
