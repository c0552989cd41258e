"""Discovery: every installed plugin is loaded by itself, so that a broken one costs nobody else anything."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import pluggy

from eagleray.contract import hooks, versions
from eagleray.contract.callbacks import TrainingCallbacks
from eagleray.contract.errors import PluginError, nearest, unknown_name
from eagleray.contract.failures import FailureRule
from eagleray.contract.framework import CONTRACT_VERSION, Framework
from eagleray.plugins.limit import TookTooLong, within
from eagleray.plugins.validity import faults_of
from eagleray.settings import Settings

GROUP = hooks.PROJECT
LIST_COMMAND = "eagleray plugins list"
# What took too long in this process is not waited for again: a control plane looks at the plugins with every job.
_left_behind: set[EntryPoint] = set()
logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Quarantine:
    """A plugin, or one framework of it, that is installed and not offered.

    Attributes:
        name: the framework's name where it is known, else the entry point's.
        reason: what is wrong, as a sentence.
        hint: what to do about it.
    """

    name: str
    distribution: str
    version: str
    reason: str
    hint: str


@dataclass(frozen=True)
class PluginFramework:
    """A framework that can be used, and where it comes from.

    Attributes:
        package_root: import name of the plugin's top package.
    """

    framework: Framework
    distribution: str
    version: str
    package_root: str


@dataclass(frozen=True)
class Catalogue:
    """What the installed plugins offer in this process.

    Attributes:
        frameworks: by name, sorted.
        blocked: entry points that `EAGLERAY_BLOCKED_PLUGINS` kept from being loaded.
        limit_s: how long a plugin's hook may take.
    """

    frameworks: Mapping[str, PluginFramework]
    quarantined: tuple[Quarantine, ...] = ()
    blocked: tuple[str, ...] = ()
    plugins: pluggy.PluginManager = field(default_factory=lambda: _pluggy_host(), repr=False, compare=False)
    limit_s: float = Settings.plugin_import_timeout_s

    def framework(self, name: str) -> PluginFramework:
        """The framework `name`.

        Raises:
            PluginError: it is installed but quarantined, or blocked; says why.
            UnknownNameError: nothing of that name is installed.
        """
        if name in self.frameworks:
            return self.frameworks[name]
        for found in self.quarantined:
            if found.name == name:
                raise PluginError(f"The framework '{name}' cannot be used: {found.reason}", found.hint)
        if name in self.blocked:
            raise PluginError(
                f"The plugin '{name}' is blocked by EAGLERAY_BLOCKED_PLUGINS.", "Take it out of that variable."
            )
        raise unknown_name("framework", name, self.frameworks, try_command=LIST_COMMAND)

    def callbacks(self) -> list[TrainingCallbacks]:
        """The callbacks of all plugins, made anew; a plugin that cannot say which, in time, contributes none."""
        found: list[TrainingCallbacks] = []
        for name, plugin in self.plugins.list_name_plugin():
            for callbacks in self._offered("register_callbacks", name, plugin):
                if isinstance(callbacks, TrainingCallbacks):
                    found.append(callbacks)
                else:
                    logger.warning(
                        "plugin '%s' offers %s, which is no TrainingCallbacks", name, type(callbacks).__name__
                    )
        return found

    def failure_rules(self, package_root: str) -> list[FailureRule]:
        """What the plugin whose top package is `package_root` says of its errors; what is no rule is left out."""
        plugins = [
            (name, plugin)
            for name, plugin in self.plugins.list_name_plugin()
            if getattr(plugin, "__name__", "").partition(".")[0] == package_root
        ]
        offered = [rule for one in plugins for rule in self._offered("register_failure_rules", *one)]
        return [rule for rule in offered if isinstance(rule, FailureRule)]

    def _offered(self, hook: str, name: str, plugin: Any) -> list[Any]:
        """What `plugin` registers by `hook`: nothing where it raises or does not come back, which is logged."""
        offered: list[Any] = []
        try:
            _aside(self.limit_s, lambda: _call(self.plugins, hook, plugin, register=offered.append))
        except KeyboardInterrupt:
            raise
        except TookTooLong:
            logger.warning("plugin '%s' has no say: its %s took longer than %g s", name, hook, self.limit_s)
            return []
        except BaseException as error:  # SystemExit too: a hook must not end a run
            logger.warning("plugin '%s' has no say: its %s raised %s: %s", name, hook, type(error).__name__, error)
            return []
        return offered


class _Rejected(Exception):
    """Why a plugin is quarantined."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason, hint)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True)
class _Source:
    """An entry point with its distribution's name and version."""

    entry_point: EntryPoint
    distribution: str
    version: str

    def quarantine(self, reason: str, hint: str, *, name: str = "") -> Quarantine:
        return Quarantine(name or self.entry_point.name, self.distribution, self.version, f"{reason}.", hint)


def discover(settings: Settings) -> Catalogue:
    """Load every plugin of the entry-point group `eagleray`. Never raises because of a plugin."""
    manager, limit_s = _pluggy_host(), settings.plugin_import_timeout_s
    quarantined: list[Quarantine] = []
    offered: list[tuple[_Source, Framework]] = []
    blocked: list[str] = []
    for source in _sources():
        if source.entry_point.name in settings.blocked_plugins:
            blocked.append(source.entry_point.name)
            continue
        try:
            plugin, frameworks = _load(source, limit_s)
        except _Rejected as error:
            quarantined.append(source.quarantine(error.reason, error.hint))
            continue
        manager.register(plugin, f"{source.entry_point.name} ({source.distribution})")
        for framework in frameworks:
            if fault := _fault(framework):
                name = str(getattr(framework, "name", ""))
                quarantined.append(source.quarantine(fault, _hint(source, framework), name=name))
            else:
                offered.append((source, framework))
                if notice := versions.notice_of(framework.contract_version):
                    warnings.warn(f"{source.distribution}: {notice}", versions.ContractDeprecation, stacklevel=2)
    return Catalogue(_without_clashes(offered, quarantined), tuple(quarantined), tuple(blocked), manager, limit_s)


def _pluggy_host() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    return manager


def _sources() -> list[_Source]:
    """All entry points of the group, in an order that does not depend on the file system."""
    sources = []
    for entry_point in entry_points(group=GROUP):
        dist = entry_point.dist
        sources.append(_Source(entry_point, dist.name if dist else "?", dist.version if dist else "?"))
    return sorted(sources, key=lambda source: (source.entry_point.name, source.distribution))


def _load(source: _Source, limit_s: float) -> tuple[Any, list[Framework]]:
    """One plugin, and what it registers.

    Raises:
        _Rejected: it does not import, misspells a hook, has none, raises in one, or does not come back.
    """
    upgrade = f"Try: pip install --upgrade {source.distribution}"
    try:
        if source.entry_point in _left_behind:
            raise TookTooLong
        return _aside(limit_s, lambda: _registered(source))
    except (KeyboardInterrupt, _Rejected):
        raise
    except TookTooLong:
        _left_behind.add(source.entry_point)
        raise _Rejected(
            f"loading it took longer than {limit_s:g} s",
            f"{upgrade}; EAGLERAY_BLOCKED_PLUGINS={source.entry_point.name} spares the wait, and on a slow disk "
            f"EAGLERAY_PLUGIN_IMPORT_TIMEOUT_S={3 * limit_s:g} gives it longer.",
        ) from None
    except BaseException as error:  # SystemExit and worse: whatever a plugin does stays its own affair
        detail = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        raise _Rejected(f"loading it raised {detail}", upgrade) from error


def _aside(limit_s: float, call: Callable[[], T]) -> T:
    """A plugin's own code, within the limit; what it prints must not end up in the middle of `--json`."""
    with contextlib.redirect_stdout(sys.stderr):
        return within(limit_s, call)


def _registered(source: _Source) -> tuple[Any, list[Framework]]:
    plugin = source.entry_point.load()
    # Its own, so that one that fails, or is late, leaves nothing with the others.
    manager = _pluggy_host()
    manager.register(plugin)
    _check_hooks(manager, plugin)
    frameworks: list[Framework] = []
    manager.hook.register_frameworks(register=frameworks.append)
    return plugin, frameworks


def _check_hooks(manager: pluggy.PluginManager, plugin: Any) -> None:
    callers = manager.get_hookcallers(plugin) or []
    valid = _hook_names(manager)
    unknown = [caller.name for caller in callers if not caller.has_spec()]
    try:
        manager.check_pending()
    except pluggy.PluginValidationError:
        guess = nearest(unknown[0], valid) or valid[0]
        raise _Rejected(
            f"it has a hook '{unknown[0]}', which does not exist",
            f"Did you mean '{guess}'? Hooks: {', '.join(valid)}.",
        ) from None
    if not callers:
        raise _Rejected("it has no hook", f"Mark a hook with @hookimpl: {', '.join(valid)}.")


def _hook_names(manager: pluggy.PluginManager) -> list[str]:
    return sorted(name for name, caller in vars(manager.hook).items() if caller.has_spec())


def _call(manager: pluggy.PluginManager, hook: str, plugin: Any, **arguments: Any) -> None:
    """Call `hook` of `plugin` alone, so that what is registered has an owner."""
    others = [other for other in manager.get_plugins() if other is not plugin]
    manager.subset_hook_caller(hook, remove_plugins=others)(**arguments)


def _fault(framework: object) -> str:
    try:
        return "; ".join(faults_of(framework))
    except Exception as error:  # a field of another type than the contract's
        return f"its description is malformed: {type(error).__name__}: {error}"


def _hint(source: _Source, framework: object) -> str:
    version = getattr(framework, "contract_version", CONTRACT_VERSION)
    if isinstance(version, int) and version > CONTRACT_VERSION:
        return "Try: pip install --upgrade eagleray"
    return f"Try: pip install --upgrade {source.distribution}"


def _without_clashes(
    offered: list[tuple[_Source, Framework]], quarantined: list[Quarantine]
) -> dict[str, PluginFramework]:
    """Frameworks by name. Of two with one name, the entry point of that very name keeps it, else the first by name."""
    found: dict[str, PluginFramework] = {}
    for source, framework in sorted(offered, key=lambda item: item[0].entry_point.name != item[1].name):
        holder = found.get(framework.name)
        if holder is not None:
            quarantined.append(
                source.quarantine(
                    f"its framework '{framework.name}' has the name of one of {holder.distribution}",
                    f"Uninstall one of them, or EAGLERAY_BLOCKED_PLUGINS={source.entry_point.name}",
                    name=framework.name,
                )
            )
            continue
        root = source.entry_point.module.partition(".")[0]
        found[framework.name] = PluginFramework(framework, source.distribution, source.version, root)
    return dict(sorted(found.items()))
