"""Discovery: what a broken plugin costs, and whom."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eagleray.contract import PluginError, UnknownNameError, versions
from eagleray.plugins.host import Quarantine, discover
from eagleray.settings import Settings
from eagleray.testing.echo import FRAMEWORK

GOOD = """
import dataclasses
from eagleray.contract import hookimpl
from eagleray.testing.echo import FRAMEWORK

@hookimpl
def register_frameworks(register):
    register(dataclasses.replace(FRAMEWORK, {changes}))
"""
HANGING_HOOK = """
import time
from eagleray.contract import hookimpl

@hookimpl
def register_frameworks(register):
    time.sleep(600)
"""
NUMBERS = itertools.count()
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a plugin: a module and the metadata of its distribution `eagleray-<name>` 1.2."""
    monkeypatch.syspath_prepend(tmp_path)
    modules: list[str] = []

    def make(name: str, source: str, entry: str = "") -> None:
        module = f"plugin_under_test_{name}"
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"eagleray_{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: eagleray-{name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[eagleray]\n{entry or name} = {module}\n")

    yield make
    for module in modules:
        sys.modules.pop(module, None)


def settings(*blocked: str) -> Settings:
    return Settings(home=Path("unused"), storage="unused", blocked_plugins=frozenset(blocked))


def only_quarantine() -> Quarantine:
    """The one plugin that is quarantined, after checking that the others go on."""
    catalogue = discover(settings())
    assert "echo" in catalogue.frameworks
    (found,) = catalogue.quarantined
    return found


def test_an_installed_plugin_is_offered_with_its_origin(install: Install) -> None:
    install("good", GOOD.format(changes="name='good'"))
    found = discover(settings()).framework("good")
    assert (found.distribution, found.version) == ("eagleray-good", "1.2")
    assert found.package_root == "plugin_under_test_good"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("1 / 0", "ZeroDivisionError"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_plugin_that_fails_at_import_is_quarantined_alone(install: Install, source: str, reason: str) -> None:
    install("bad", source)
    found = only_quarantine()
    assert (found.name, found.distribution, found.version) == ("bad", "eagleray-bad", "1.2")
    assert reason in found.reason


def test_a_keyboard_interrupt_at_import_is_the_users(install: Install) -> None:
    install("bad", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        discover(settings())


# The thread may be in a callback of the garbage collector when it is told to end; Python then only says so.
@pytest.mark.filterwarnings("ignore:(?s).*SystemExit:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("hang", ["import time; time.sleep(600)", "while True: pass", HANGING_HOOK])
@pytest.mark.parametrize("in_main_thread", [True, False])
def test_a_plugin_that_does_not_come_back_is_quarantined_alone(
    install: Install, hang: str, in_main_thread: bool
) -> None:
    # Its import holds its module's name in this process from now on.
    name = f"hanging{next(NUMBERS)}"
    install(name, hang)
    install("good", GOOD.format(changes="name='good'"))
    limited = dataclasses.replace(settings(), plugin_import_timeout_s=0.5)
    if in_main_thread:
        catalogue = discover(limited)
    else:
        with ThreadPoolExecutor(1) as pool:
            catalogue = pool.submit(discover, limited).result()
    (found,) = catalogue.quarantined
    assert {"echo", "good"} <= set(catalogue.frameworks)
    assert (found.name, found.reason) == (name, "loading it took longer than 0.5 s.")
    assert f"EAGLERAY_BLOCKED_PLUGINS={name}" in found.hint
    assert "EAGLERAY_PLUGIN_IMPORT_TIMEOUT_S=1.5" in found.hint
    started = time.monotonic()
    assert discover(limited).quarantined == (found,)
    assert time.monotonic() - started < 0.5, "it is waited for once"


def test_a_misspelt_hook_names_the_nearest_and_spares_the_others(install: Install) -> None:
    misspelt = "from eagleray.contract import hookimpl\n@hookimpl\ndef register_framework(register): pass\n"
    install("bad", misspelt)
    install("good", GOOD.format(changes="name='good'"))
    found = only_quarantine()
    assert "'register_framework'" in found.reason
    assert "'register_frameworks'" in found.hint
    assert "good" in discover(settings()).frameworks


def test_a_plugin_without_any_hook_is_quarantined(install: Install) -> None:
    install("bad", "def register_frameworks(register): pass")
    assert "no hook" in only_quarantine().reason


def test_a_hook_that_raises_offers_nothing_of_what_it_registered_before(install: Install) -> None:
    install("bad", GOOD.format(changes="name='half'") + "    raise RuntimeError('broken')\n")
    assert "RuntimeError: broken" in only_quarantine().reason
    assert "half" not in discover(settings()).frameworks


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ("contract_version=2", "contract version 2, this core has 1"),
        ("name='No Name'", "'No Name'"),
        ("tasks=('object-detektion',)", "did you mean 'object-detection'"),
        ("tasks=('object-detection',)", "'echo-linear' is for 'image-classification'"),
        ("configs={}", "'image-classification' has no config"),
        ("adapter='module.Class'", "the adapter 'module.Class' is not of the form"),
        ("predictor='module'", "the predictor 'module' is not of the form"),
        ("environment=dataclasses.replace(FRAMEWORK.environment, lock='x')", "lock 'x' is not of the form"),
        ("best_metrics={}", "'image-classification' has no best metric"),
        ("models=FRAMEWORK.models[:1] * 2", "stands twice"),
        ("tasks=None", "malformed"),
    ],
)
def test_an_invalid_framework_is_quarantined_with_the_field_that_is_wrong(
    install: Install, changes: str, reason: str
) -> None:
    name = "" if changes.startswith("name") else "name='bad', "
    install("bad", GOOD.format(changes=name + changes))
    assert reason in only_quarantine().reason


def test_of_two_frameworks_with_one_name_the_stranger_is_quarantined(install: Install) -> None:
    install("aaa", GOOD.format(changes="name='echo'"))
    found = only_quarantine()
    assert (found.distribution, found.name) == ("eagleray-aaa", "echo")
    assert discover(settings()).framework("echo").distribution == "eagleray"


def test_a_blocked_plugin_is_not_even_imported(install: Install) -> None:
    install("bad", "raise RuntimeError")
    catalogue = discover(settings("bad"))
    assert not catalogue.quarantined
    with pytest.raises(PluginError, match="EAGLERAY_BLOCKED_PLUGINS"):
        catalogue.framework("bad")


def test_asking_for_a_quarantined_framework_says_why(install: Install) -> None:
    install("bad", "1 / 0")
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        discover(settings()).framework("bad")


def test_an_unknown_framework_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'echo'") as caught:
        discover(settings()).framework("ecko")
    assert "eagleray plugins list" in caught.value.hint


def test_what_a_plugin_prints_at_import_stays_off_standard_output(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("loud", "print('hello')\n" + GOOD.format(changes="name='loud'"))
    discover(settings())
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")


def test_what_a_plugin_prints_in_a_hook_stays_off_standard_output(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    hooks = "".join(
        f"@hookimpl\ndef {name}(register):\n    print('{name}')\n"
        for name in ("register_callbacks", "register_failure_rules")
    )
    install("loud", f"from eagleray.contract import hookimpl\n{hooks}")
    catalogue = discover(settings())
    assert (catalogue.callbacks(), catalogue.failure_rules("plugin_under_test_loud")) == ([], [])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.split() == ["register_callbacks", "register_failure_rules"]


def test_callbacks_are_made_when_asked_for_and_one_that_raises_costs_the_others_nothing(install: Install) -> None:
    hook = "from eagleray.contract import TrainingCallbacks, hookimpl\n@hookimpl\ndef register_callbacks(register):\n"
    install("bad", hook + "    raise SystemExit\n")
    install("good", hook + "    register(TrainingCallbacks())\n    register('none')\n")
    catalogue = discover(settings())
    assert not catalogue.quarantined
    assert len(catalogue.callbacks()) == 1


def test_a_hook_that_never_comes_back_or_exits_costs_a_run_nothing_but_the_limit(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = """
import time
from eagleray.contract import hookimpl

@hookimpl
def register_callbacks(register):
    time.sleep(600)

@hookimpl
def register_failure_rules(register):
    raise SystemExit(3)
"""
    install("late", hooks)
    catalogue = discover(dataclasses.replace(settings(), plugin_import_timeout_s=0.5))
    started = time.monotonic()
    assert catalogue.callbacks() == []
    assert catalogue.failure_rules("plugin_under_test_late") == []
    assert time.monotonic() - started < 10
    assert "its register_callbacks took longer than 0.5 s" in caplog.text
    assert "its register_failure_rules raised SystemExit: 3" in caplog.text


def test_the_reference_framework_is_valid() -> None:
    assert dataclasses.asdict(FRAMEWORK)["name"] in discover(settings()).frameworks


def test_a_plugin_of_a_version_that_ends_is_offered_with_a_warning(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "OLDEST_VERSION", 0)
    monkeypatch.setattr(versions, "ENDING", {0: "0.9"})
    install("old", GOOD.format(changes="name='old', contract_version=0"))
    with pytest.warns(versions.ContractDeprecation, match=r"eagleray-old: .* ends with eagleray 0\.9"):
        assert "old" in discover(settings()).frameworks
