"""What may stand in a lock, and what its name depends on."""

from __future__ import annotations

import platform
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from eagleray.contract.errors import EnvironmentBuildError, PluginError
from eagleray.environments import lock as module
from eagleray.environments.lock import environment_name, parse_lock, ray_version, read_lock

HASH = f"--hash=sha256:{'a' * 64}"
REPOSITORY = Path(__file__).parents[3]
LOCKS = {
    "eagleray.testing:locks/echo.txt": ("core", "echo"),
    "eagleray_ultralytics:locks/runtime.txt": ("plugins/ultralytics", "runtime"),
}


@pytest.mark.parametrize(
    "line",
    [
        "six>=1.0 " + HASH,
        "six==1.* " + HASH,
        "six " + HASH,
        "six===1.0 " + HASH,
        "six==1.0,<2 " + HASH,
        "--extra-index-url https://evil.example/simple",
        "--index-url https://evil.example/simple",
        "-i https://evil.example/simple",
        "--find-links /tmp/wheels",
        "--trusted-host evil.example",
        "--no-binary :all:",
        "-r other.txt",
        "-c constraints.txt",
        "-e .",
        "./six.whl " + HASH,
        "six @ https://evil.example/six.whl " + HASH,
        "six @ file:///tmp/six.whl " + HASH,
        "git+https://evil.example/six#egg=six " + HASH,
        "six==1.0 --index-url=https://evil.example " + HASH,
        f"six==1.0 {HASH} --extra-index-url https://evil.example",
        "six==1.0 ; --index-url " + HASH,
        "six==1.0 --hash=md5:" + "a" * 32,
        "six==1.0 --hash=sha256:" + "a" * 63,
        "six==1.0 --hash=sha256:" + "A" * 64,
        f"six==1.0 {HASH}\u2028-r other.txt",
        "s\u0456x==1.0 " + HASH,
        "six==${VERSION} " + HASH,
    ],
)
def test_a_line_that_is_no_pin_is_refused_by_number(line: str) -> None:
    with pytest.raises(PluginError, match=r"Line 3 of the lock p:l\.txt") as refused:
        parse_lock(f"# a comment\nfine==1.0 {HASH}\n{line}\n", "p:l.txt")
    assert "name==version" in refused.value.hint


def test_a_pin_without_hash_is_refused() -> None:
    with pytest.raises(PluginError, match=r"Line 1 of the lock p:l\.txt has no hash: 'six==1.0'"):
        parse_lock("six==1.0\n", "p:l.txt")


def test_a_hash_cannot_be_commented_away() -> None:
    with pytest.raises(PluginError, match="has no hash"):
        parse_lock(f"six==1.0 \\\n    # {HASH}\n", "p:l.txt")


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_an_empty_lock_is_refused(text: str) -> None:
    with pytest.raises(PluginError, match="has no requirement"):
        parse_lock(text, "p:l.txt")


def test_a_line_may_go_on_and_have_a_marker() -> None:
    lock = parse_lock(f"Foo.Bar[x]==1.0+cpu ; sys_platform == 'linux' \\\n    {HASH} \\\n    {HASH[:-1]}b\n", "p:l.txt")
    (pin,) = lock.requirements
    assert (pin.name, pin.version, pin.marker, len(pin.hashes)) == ("foo-bar", "1.0+cpu", "sys_platform == 'linux'", 2)


@given(st.text(max_size=200))
def test_any_text_is_pins_with_hashes_or_refused(text: str) -> None:
    try:
        lock = parse_lock(text, "p:l.txt")
    except PluginError:
        return
    assert all(pin.hashes for pin in lock.requirements)


@given(
    st.lists(st.sampled_from(["-r x", "--index-url", "six==1", HASH, "\\", "\n", ";", "#", " ", "@ u", "\r", "\x85"]))
)
def test_what_uv_is_given_holds_no_option_but_hashes(parts: list[str]) -> None:
    try:
        lock = parse_lock("".join(parts), "p:l.txt")
    except PluginError:
        return
    for line in lock.normalised.splitlines():
        assert re.fullmatch(rf"six==1( {HASH})+", line)


def test_layout_order_and_comments_do_not_change_the_name() -> None:
    one = parse_lock(f"a==1 {HASH}\nb==2 {HASH}\n", "p:l.txt")
    other = parse_lock(f"# made today\r\nb==2 \\\r\n   {HASH}\r\n\r\na==1   {HASH}", "p:l.txt")
    assert environment_name(one) == environment_name(other)


@pytest.mark.parametrize("text", [f"a==2 {HASH}", f"a==1 {HASH[:-1]}b", f"a==1 ; python_version > '3' {HASH}"])
def test_another_pin_hash_or_marker_changes_the_name(text: str) -> None:
    assert environment_name(parse_lock(text, "p:l.txt")) != environment_name(parse_lock(f"a==1 {HASH}", "p:l.txt"))


@pytest.mark.parametrize("fact", ["python_version", "python_implementation", "system", "machine"])
def test_another_python_or_platform_changes_the_name(fact: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = parse_lock(f"a==1 {HASH}", "p:l.txt")
    here = environment_name(lock)
    monkeypatch.setattr(platform, fact, lambda: "other")
    module._platform.cache_clear()
    try:
        assert environment_name(lock) != here
    finally:
        monkeypatch.undo()
        module._platform.cache_clear()


@pytest.mark.parametrize(
    ("reference", "label"),
    [
        ("eagleray_ultralytics:locks/runtime.txt", "ultralytics"),
        ("eagleray.testing:locks/echo.txt", "echo"),
        ("eagleray_x:../Bad Name.txt", "bad-name"),
    ],
)
def test_the_name_begins_with_the_framework(reference: str, label: str) -> None:
    assert re.fullmatch(rf"{label}-[0-9a-f]{{16}}", environment_name(parse_lock(f"a==1 {HASH}", reference)))


@pytest.mark.parametrize(
    "reference",
    ["", "locks/runtime.txt", "no_such_package:l.txt", "eagleray:no.txt", "eagleray:/etc/passwd", "eagleray:../x"],
)
def test_a_reference_that_leads_nowhere_is_refused(reference: str) -> None:
    with pytest.raises(PluginError):
        read_lock(reference)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lock of an importable package `shipped_plugin`."""
    (tmp_path / "shipped_plugin").mkdir()
    (tmp_path / "shipped_plugin" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "shipped_plugin", ModuleType("shipped_plugin"))
    monkeypatch.delitem(sys.modules, "shipped_plugin")
    return tmp_path / "shipped_plugin" / "lock.txt"


@pytest.mark.parametrize(("text", "says"), [(f"ray==1.0 {HASH}", "pins ray 1.0"), (f"six==1.0 {HASH}", "has no ray")])
def test_a_lock_for_another_ray_is_refused_with_the_remedy(shipped: Path, text: str, says: str) -> None:
    shipped.write_text(text)
    with pytest.raises(EnvironmentBuildError, match=says) as refused:
        read_lock("shipped_plugin:lock.txt")
    assert ray_version() in refused.value.message
    assert "ray==" in refused.value.hint


def test_a_lock_of_many_megabytes_is_not_read(shipped: Path) -> None:
    shipped.write_text("#" * (2 << 20))
    with pytest.raises(PluginError, match="2097152 bytes"):
        read_lock("shipped_plugin:lock.txt")


def test_a_lock_that_is_not_text_is_refused(shipped: Path) -> None:
    shipped.write_bytes(b"\xff\xfe")
    with pytest.raises(PluginError, match="not UTF-8"):
        read_lock("shipped_plugin:lock.txt")


@pytest.mark.parametrize("reference", LOCKS)
def test_a_committed_lock_fulfils_the_pyproject_pins(reference: str) -> None:
    folder, extra = LOCKS[reference]
    lock = read_lock(reference)
    wanted = _project("core")["dependencies"] + _project(folder)["optional-dependencies"][extra]
    for requirement in map(Requirement, wanted):
        versions = lock.versions(requirement.name)
        assert versions, f"{reference} lacks {requirement.name}; run scripts/lock.sh"
        assert all(requirement.specifier.contains(version, prereleases=True) for version in versions), requirement


@pytest.mark.parametrize("reference", LOCKS)
def test_a_committed_lock_pins_the_cores_ray(reference: str) -> None:
    (ray,) = [pin for pin in map(Requirement, _project("core")["dependencies"]) if pin.name == "ray"]
    assert f"=={next(iter(read_lock(reference).versions('ray')))}" == str(ray.specifier)


@pytest.mark.parametrize("reference", LOCKS)
def test_a_committed_lock_names_no_address(reference: str) -> None:
    assert "://" not in read_lock(reference).text


def _project(folder: str) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((REPOSITORY / folder / "pyproject.toml").read_text())["project"]
    return project
