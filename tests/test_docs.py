"""What README.md and docs/ tell a reader to type works.

A comment on the line before a fence says what is done with it; CONTRIBUTING.md lists them:
`<!-- run -->`, `<!-- run: cluster -->` and `<!-- run: framework -->` (bash), `<!-- job spec -->` (yaml). Python is run
wherever it stands.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
MARKS = {"run", "run: cluster", "run: framework", "job spec"}
BASH = ["bash", "-euo", "pipefail", "-s"]
TOOLS = Path(sys.executable).parent
DELIMITER = re.compile(r"\|(?:\s*:?-+:?\s*\|)+\s*")
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
TABLES = [
    *PAGES,
    *(ROOT / name for name in ("CONTRIBUTING.md", "benchmarks/README.md")),
    *ROOT.glob("plugins/*/README.md"),
]
BLOCKS = [block for page in PAGES for block in blocks_of(str(page.relative_to(ROOT)), page.read_text())]


def cases(language: str, mark: str | None) -> list[object]:
    chosen = [block for block in BLOCKS if block.language == language and mark in (None, block.mark)]
    return [pytest.param(block, id=block.where) for block in chosen]


def foreign_variables() -> dict[str, str]:
    """The environment without what this project, its Ray and its `.venv` have put there."""
    own = ("EAGLERAY_", "RAY_", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "PYTHONPATH")
    path = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != TOOLS]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return kept | {"PATH": os.pathsep.join(path)}


def run(folder: Path, command: list[str], text: str, variables: dict[str, str], timeout_s: float) -> None:
    """Runs `text` by `command` in `folder`; fails with what it printed."""
    environment = foreign_variables() | variables
    result = subprocess.run(
        command, input=text, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout_s
    )
    assert result.returncode == 0, f"{text}\n{result.stdout}\n{result.stderr}"


def run_in(folder: Path, command: list[str], text: str) -> None:
    """As `run`, in an empty folder that is HOME, with the project's tools on the path."""
    variables = {
        "HOME": str(folder),
        "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }
    run(folder, command, text, variables, 500)


def copy_tree(target: Path) -> Path:
    """The files of a clone, with what is not committed yet and nothing that git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, os.fsdecode(listed).split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def torn_tables(text: str) -> list[str]:
    """First rows of tables whose second row is no delimiter: what a blank line within a table makes of its rest."""
    outside = FENCE.sub("", text).splitlines()
    starts = [number for number, line in enumerate(outside) if line.startswith("|")]
    starts = [number for number in starts if number == 0 or not outside[number - 1].startswith("|")]
    return [outside[number] for number in starts if not DELIMITER.fullmatch("".join(outside[number + 1 : number + 2]))]


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
    run_in(tmp_path, BASH, block.text)


@pytest.mark.cluster
@pytest.mark.parametrize("block", cases("bash", "run: cluster"))
def test_commands_that_start_a_cluster_work(block: Block, tmp_path: Path) -> None:
    run_in(tmp_path, BASH, block.text)


@pytest.mark.framework
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", cases("bash", "run: framework"))
def test_commands_that_train_work_in_a_fresh_clone_of_a_new_user(block: Block, tmp_path: Path) -> None:
    # Only packages that were downloaded before are not downloaded again.
    cache = os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
    home = tmp_path / "home"
    home.mkdir()
    run(copy_tree(tmp_path / "clone"), BASH, block.text, {"HOME": str(home), "UV_CACHE_DIR": cache}, 3600)


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
        run_in(tmp_path, BASH, "false\necho on\n")


def test_a_new_user_has_none_of_this_projects_tools_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLERAY_HOME", "/elsewhere")
    monkeypatch.setenv("PATH", f"{TOOLS}{os.pathsep}/usr/bin")
    variables = foreign_variables()
    assert variables["PATH"] == "/usr/bin"
    assert not [name for name in variables if name.startswith(("EAGLERAY_", "RAY_", "VIRTUAL_ENV"))]


def test_a_copy_of_the_tree_has_what_a_clone_has(tmp_path: Path) -> None:
    copy = copy_tree(tmp_path / "clone")
    assert (copy / "scripts" / "first-run.sh").read_bytes() == (ROOT / "scripts" / "first-run.sh").read_bytes()
    assert not (copy / ".venv").exists() and not (copy / ".git").exists()


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in TABLES])
def test_no_table_is_torn_by_a_blank_line(page: Path) -> None:
    assert torn_tables(page.read_text()) == []


def test_a_torn_table_is_seen() -> None:
    table = "| a | b |\n|---|:-:|\n| 1 | 2 |\n"
    assert torn_tables(f"{table}\ntext\n\n{table}") == []
    assert torn_tables(f"{table}\n| 3 | 4 |\n") == ["| 3 | 4 |"]
