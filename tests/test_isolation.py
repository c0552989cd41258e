"""Plugins that cannot live together train at once; one that cannot be installed fails alone.

All three are installed on the head only. The node that trains has just Ray and the core.
"""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uv
import yaml

from eagleray.environments.plugin_lock import write_lock
from eagleray.plugins.scaffold import write_plugin

from .conftest import Home
from .ray_cluster import start_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

# Each reports the version that it sees, and begins only when the other is there too.
MEETING = """
    def load_data(self) -> None:
        import iniconfig  # noqa: F401
        import time
        from importlib.metadata import version

        self.seen = float(".".join(version("iniconfig").split(".")[:2]))
        folder = Path("{folder}")
        (folder / "{name}").write_text(str(self.seen))
        deadline = time.monotonic() + 240
        while len(list(folder.iterdir())) < 2:
            if time.monotonic() > deadline:
                raise TimeoutError("the other plugin never came")
            time.sleep(0.1)
"""
VERSIONS = {"first": "2.0.0", "second": "2.1.0"}


def make_plugin(name: str, needs: str, meeting: Path, parent: Path) -> Path:
    """A plugin whose adapter imports iniconfig in the version that it `needs`."""
    folder = write_plugin(name, "image-classification", parent)
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace('"numpy>=2,<3"', f'"numpy>=2,<3", "{needs}"'))
    adapter = folder / "src" / f"eagleray_{name}" / "adapter.py"
    text = adapter.read_text()
    text = text.replace("    def load_data(self) -> None:\n", MEETING.format(folder=meeting, name=name), 1)
    adapter.write_text(text.replace('metrics = {"loss"', 'metrics = {"library": self.seen, "loss"'))
    return folder


def install(folder: Path, into: Path) -> None:
    """The package and its metadata, as pip would install them, in a folder that only the head's path names."""
    command = [uv.find_uv_bin(), "pip", "install", "-q", "--no-deps", "--target", str(into), str(folder)]
    subprocess.run(command, check=True)


@pytest.fixture
def only_on_the_head(tmp_path: Path) -> Path:
    """A folder with three installed plugins: two that need conflicting versions, one that needs what there is not."""
    site, meeting = tmp_path / "site", tmp_path / "meeting"
    meeting.mkdir()
    for name, version in VERSIONS.items():
        folder = make_plugin(name, f"iniconfig=={version}", meeting, tmp_path)
        write_lock(folder)
        install(folder, site)
    third = make_plugin("third", "iniconfig==99.0", meeting, tmp_path)
    lock = third / "src" / "eagleray_third" / "locks" / "runtime.txt"
    lock.write_text(f"{lock.read_text()}iniconfig==99.0 --hash=sha256:{'0' * 64}\n")
    install(third, site)
    return site


def job_file(name: str, pictures: Path, folder: Path) -> Path:
    file = folder / f"{name}.yaml"
    spec = {"framework": name, "model_name": f"{name}-small", "dataset_path": str(pictures), "epochs": 2}
    file.write_text(yaml.safe_dump({**spec, "batch_size": 4, "pretrained": False}))
    return file


def test_plugins_that_exclude_each_other_train_at_once_and_a_broken_one_fails_alone(
    home: Home, pictures: Path, tmp_path: Path, plain_venv: Path, only_on_the_head: Path
) -> None:
    path = os.pathsep.join(filter(None, [str(only_on_the_head), home.environ.get("PYTHONPATH")]))
    names = [*VERSIONS, "third"]
    files = {name: job_file(name, pictures, tmp_path) for name in names}
    with start_cluster(home, tmp_path, plain_venv, {"PYTHONPATH": path}) as cluster, ThreadPoolExecutor(3) as threads:
        runs = {
            name: threads.submit(cluster.submit, "eagleray", "run", str(files[name]), job_id=f"{name}-1")
            for name in names
        }
        done = {name: run.result() for name, run in runs.items()}
    records = {record["spec"]["framework"]: record for record in (home.record(number) for number in (1, 2, 3))}
    for name, version in VERSIONS.items():
        assert done[name].returncode == 0, done[name].stdout[-3000:]
        assert records[name]["status"] == "completed"
        assert seen(home, records[name]) == [float(version[:3])] * 2
    assert records["first"]["environment"] != records["second"]["environment"]
    assert done["third"].returncode != 0 and records["third"]["status"] == "failed"
    assert re.search(r"eagleray_third:locks/runtime\.txt could not be installed.*iniconfig", said(records["third"]))


def seen(home: Home, record: dict[str, Any]) -> list[float]:
    """The version of iniconfig in every epoch, as the worker reported it."""
    return [row["metrics"]["library"] for row in home.metrics(record["id"])]


def said(record: dict[str, Any]) -> str:
    return " ".join(str(record.get(key) or "") for key in ("error_message", "message"))
