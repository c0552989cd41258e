"""cluster.yaml is what `ray up` accepts, is closed to strangers, and knows no framework."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FRAMEWORKS = ("torch", "torchvision", "ultralytics", "timm", "transformers", "accelerate")

# Ray's own check, in a process of its own: importing the autoscaler warns, and warnings are errors here.
VALIDATE = """
import sys, yaml
from ray.autoscaler._private.util import prepare_config, validate_config
validate_config(prepare_config(yaml.safe_load(sys.stdin)))
"""


@pytest.fixture
def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return loaded


def validate(config: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", VALIDATE], input=yaml.safe_dump(config), capture_output=True, text=True, timeout=120
    )


def commands(cluster: dict[str, Any]) -> list[str]:
    return [line for key, value in cluster.items() if key.endswith("_commands") for line in value]


def switches(cluster: dict[str, Any]) -> dict[str, str]:
    """What `~/eagleray-node.sh` exports, as a shell would read it."""
    (script,) = [command for command in cluster["setup_commands"] if "eagleray-node.sh <<" in command]
    return {name: value.strip("'\"") for name, value in re.findall(r"^export (\w+)=(.*)$", script, re.MULTILINE)}


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    result = validate(cluster)
    assert result.returncode == 0, result.stderr


def test_rays_check_refuses_a_misspelt_key(cluster: dict[str, Any]) -> None:
    broken = copy.deepcopy(cluster) | {"max_wokers": 3}
    result = validate(broken)
    assert result.returncode != 0
    assert "max_wokers" in result.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RAY_AUTH_MODE", "token"),
        ("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0"),
        ("RAY_RUNTIME_ENV_PLUGINS", '[{"class":"eagleray.execution.runtime_env.EnvironmentPlugin"}]'),
        ("RAY_USAGE_STATS_ENABLED", "0"),
        ("RAY_JOB_STOP_SIGNAL", "SIGINT"),
        ("RAY_JOB_STOP_WAIT_TIME_S", "60"),
    ],
)
def test_every_node_gets_the_switch(cluster: dict[str, Any], name: str, value: str) -> None:
    assert switches(cluster)[name] == value


@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_is_started_with_the_switches(cluster: dict[str, Any], key: str) -> None:
    assert all(command.startswith(". ~/eagleray-node.sh;") for command in cluster[key])


def test_the_head_runs_drivers_only(cluster: dict[str, Any]) -> None:
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert "--num-cpus=0" in cluster["head_start_ray_commands"][-1]


def test_gpu_nodes_come_from_zero(cluster: dict[str, Any]) -> None:
    workers = {name: node for name, node in cluster["available_node_types"].items() if name != "head"}
    assert workers
    assert all(node["min_workers"] == 0 < node["max_workers"] for node in workers.values())


def test_the_dashboard_listens_on_loopback(cluster: dict[str, Any]) -> None:
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][-1]
    assert "0.0.0.0" not in (ROOT / "cluster.yaml").read_text()


def test_the_token_is_a_mounted_file_and_no_secret_stands_in_the_text(cluster: dict[str, Any]) -> None:
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    text = (ROOT / "cluster.yaml").read_text()
    assert not re.search(r"RAY_AUTH_TOKEN=|AWS_SECRET|AKIA[0-9A-Z]{16}|[0-9a-f]{40}", text)


def test_no_framework_is_installed(cluster: dict[str, Any]) -> None:
    installed = [command for command in commands(cluster) if "install" in command]
    assert installed
    for name in FRAMEWORKS:
        assert not any(re.search(rf"\b{name}\b", command) for command in installed)


def test_plugins_are_listed_without_extras() -> None:
    lines = (ROOT / "deploy/plugins.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert packages
    assert all(re.fullmatch(r"[a-z0-9-]+([=<>~!].*)?", line) for line in packages), packages
    assert not set(packages) & set(FRAMEWORKS)


def test_the_plugin_list_that_the_head_installs_is_mounted(cluster: dict[str, Any]) -> None:
    assert (ROOT / cluster["file_mounts"]["~/eagleray-plugins.txt"]).is_file()
    assert any("-r ~/eagleray-plugins.txt" in command for command in cluster["head_setup_commands"])
    assert not any("eagleray-plugins" in command for command in cluster["worker_setup_commands"])
