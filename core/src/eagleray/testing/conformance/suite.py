"""What all parts of the suite share: which plugin is meant, and that no standard test goes missing."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from eagleray.contract import Framework
from eagleray.testing.attempt import find_framework

# What chooses and checks the standard tests: as little to be replaced as these.
LOOKING = ("__init_subclass__", "pytest_generate_tests")


class Conformance:
    """Base of the suite's parts.

    Attributes:
        plugin: the module of the plugin's entry point.
        framework_name: which of its frameworks, where it registers several.

    Raises:
        TypeError: C32: a subclass deletes or replaces a standard test. It is raised where the class is made, so that no
            test of the class need be asked.
    """

    plugin: str = ""
    framework_name: str = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if found := missing_tests(cls):
            raise TypeError(f"{cls.__qualname__}: {'; '.join(found)}")

    @pytest.fixture(scope="class")
    @classmethod
    def framework(cls) -> Framework:
        return find_framework(cls.plugin, cls.framework_name)

    def test_c32_no_standard_test_is_deleted_or_replaced(self) -> None:
        """C32"""
        assert not missing_tests(type(self))


def missing_tests(cls: type) -> list[str]:
    """Standard tests, and what looks for them, that `cls` lacks or replaces without `xfail(reason=…)`, as clauses."""
    found = []
    for standard in inspect.getmro(cls):
        if not standard.__module__.startswith("eagleray.testing.conformance"):
            continue
        for name, test in vars(standard).items():
            if name.startswith("test_"):
                own = getattr(cls, name, None)
                if not callable(own):
                    found.append(f"{name} is deleted")
                elif own is not test and not _expected_to_fail(own):
                    found.append(f"{name} is replaced without xfail(reason=…)")
            elif name in LOOKING and inspect.getattr_static(cls, name) is not test:
                found.append(f"{name} is replaced, by which standard tests are found")
    return found


def _expected_to_fail(test: object) -> bool:
    marks = getattr(test, "pytestmark", [])
    return any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks)
