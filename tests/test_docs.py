"""What README.md and docs/ tell a reader to type works.

A comment on the line before a fence says what is done with it; CONTRIBUTING.md lists them:
`<!-- run -->` and `<!-- run: cluster -->` (bash), `<!-- job spec -->` (yaml). Python is run wherever it stands.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
MARKS = {"run", "run: cluster", "job spec"}
FENCE = re.compile(
    r"^(?:<!--[ ]*(?P<mark>[^>]*?)[ ]*-->\n)?^(?P<ticks>`{3,})(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=ticks)$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        where: file and line of the fence, as an editor takes it.
        language: the word after the fence, or "".
        mark: the text of the comment before the fence, or "".
        text: what stands between the fences.
    """

    where: str
    language: str
    mark: str
    text: str


def blocks_of(name: str, text: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("ticks")) + 1
        yield Block(f"{name}:{line}", match["language"], match["mark"] or "", match["text"])


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [block for page in PAGES for block in blocks_of(str(page.relative_to(ROOT)), page.read_text())]


def cases(language: str, mark: str | None) -> list[object]:
    chosen = [block for block in BLOCKS if block.language == language and mark in (None, block.mark)]
    return [pytest.param(block, id=block.where) for block in chosen]


def run_in(folder: Path, command: list[str], text: str) -> None:
    """Runs `text` by `command` in an empty folder with a HOME of its own; fails with what it printed."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("EAGLERAY_", "RAY_", "VIRTUAL_ENV"))
    } | {
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }
    result = subprocess.run(
        command, input=text, cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, f"{text}\n{result.stdout}\n{result.stderr}"


def test_the_readme_has_a_block_that_is_run() -> None:
    marked = [block for block in BLOCKS if block.where.startswith("README.md") and block.mark.startswith("run")]
    assert marked, "put <!-- run --> before a bash block of README.md"


def test_the_readme_names_the_two_commands() -> None:
    text = "".join(block.text for block in BLOCKS if block.where.startswith("README.md"))
    for script in ("scripts/first-run.sh", "scripts/test.sh"):
        assert f"bash {script}" in text
        assert (ROOT / script).is_file()


@pytest.mark.parametrize("block", [pytest.param(block, id=block.where) for block in BLOCKS if block.mark])
def test_a_mark_is_known_and_fits_its_language(block: Block) -> None:
    language = "yaml" if block.mark == "job spec" else "bash"
    assert block.mark in MARKS, f"{block.where}: unknown mark {block.mark!r}; valid: {sorted(MARKS)}"
    assert block.language == language, f"{block.where}: {block.mark!r} stands before {block.language!r}"


@pytest.mark.parametrize("block", cases("bash", "run"))
def test_commands_work(block: Block, tmp_path: Path) -> None:
    run_in(tmp_path, ["bash", "-euo", "pipefail", "-s"], block.text)


@pytest.mark.cluster
@pytest.mark.parametrize("block", cases("bash", "run: cluster"))
def test_commands_that_start_a_cluster_work(block: Block, tmp_path: Path) -> None:
    run_in(tmp_path, ["bash", "-euo", "pipefail", "-s"], block.text)


@pytest.mark.parametrize("block", cases("yaml", "job spec"))
def test_job_specs_are_valid(block: Block) -> None:
    from eagleray.jobs.spec import JobSpec

    JobSpec.model_validate(yaml.safe_load(block.text))


@pytest.mark.parametrize("block", cases("python", None))
def test_python_runs(block: Block, tmp_path: Path) -> None:
    compile(block.text, block.where, "exec")
    run_in(tmp_path, [sys.executable, "-"], block.text)


def test_a_block_is_read_with_its_mark_and_line() -> None:
    page = "# A\n\n<!-- run -->\n```bash\necho 1\n```\n\n```python\nx = 1\n```\n"
    assert list(blocks_of("page.md", page)) == [
        Block("page.md:4", "bash", "run", "echo 1\n"),
        Block("page.md:8", "python", "", "x = 1\n"),
    ]


def test_a_fence_inside_a_longer_fence_is_text() -> None:
    page = "````markdown\n<!-- run -->\n```bash\nfalse\n```\n````\n"
    assert [block.language for block in blocks_of("page.md", page)] == ["markdown"]


def test_a_command_that_fails_in_the_middle_fails_the_block(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="false"):
        run_in(tmp_path, ["bash", "-euo", "pipefail", "-s"], "false\necho on\n")
