"""The pages of docs/ that are read off the code say what the code says."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

from eagleray.cli.app import app
from eagleray.contract import errors
from eagleray.jobs.spec import JobSpec, Scaling

SCRIPT = Path(__file__).parents[1] / "scripts" / "generate_docs.py"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_pages_are_what_would_be_written() -> None:
    result = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_a_stale_page_is_found(generator: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(generator, "DOCS", tmp_path)
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0
    (tmp_path / "job-spec.md").write_text("old")
    assert generator.main(["--check"]) == 1


def test_every_key_of_a_job_is_described() -> None:
    for model in (JobSpec, Scaling):
        assert all(field.description for field in model.model_fields.values()), model


def test_the_flags_named_beside_keys_exist(generator: ModuleType) -> None:
    train = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    known = {name for parameter in train.params for name in (*parameter.opts, *parameter.secondary_opts)}
    named = {flag for flags in generator.FLAGS.values() for flag in flags.split(", ") if flag}
    assert named <= known


def test_every_exit_code_of_an_error_is_listed(generator: ModuleType) -> None:
    kinds = [found for found in vars(errors).values() if isinstance(found, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.EaglerayError)}
    assert codes <= set(generator.CODES)
