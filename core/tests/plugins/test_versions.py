"""Contract versions: a range is taken, and what ends says with which release."""

from __future__ import annotations

import warnings

import pytest

from eagleray.contract import versions
from eagleray.testing.echo import FRAMEWORK


@pytest.fixture
def range_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "OLDEST_VERSION", 2)
    monkeypatch.setattr(versions, "CONTRACT_VERSION", 4)
    monkeypatch.setattr(versions, "ENDING", {2: "0.5"})


@pytest.mark.parametrize(("version", "taken"), [(1, False), (2, True), (4, True), (5, False), ("4", False)])
def test_versions_between_the_oldest_and_the_newest_are_taken(
    range_of_three: None, version: object, taken: bool
) -> None:
    assert (versions.fault_of(version) == "") is taken


def test_a_refusal_names_the_versions_that_are_taken(range_of_three: None) -> None:
    assert versions.fault_of(7) == "it asks for contract version 7, this core has 2 to 4"


def test_a_version_that_ends_names_the_release(range_of_three: None) -> None:
    assert "ends with eagleray 0.5" in versions.notice_of(2)
    assert versions.notice_of(4) == ""


def test_the_current_version_is_taken_without_a_word() -> None:
    assert versions.fault_of(FRAMEWORK.contract_version) == versions.notice_of(FRAMEWORK.contract_version) == ""


def test_a_deprecation_names_the_release_and_what_to_use_instead() -> None:
    def an_old_door() -> None:
        versions.deprecated("`an_old_door`", ends_in="0.6", instead="Use `a_new_one`.")

    with pytest.warns(versions.ContractDeprecation, match=r"ends with eagleray 0\.6\. Use `a_new_one`") as caught:
        an_old_door()
    assert caught[0].filename == __file__


def test_users_see_a_deprecation_without_asking_for_it() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        versions.deprecated("x", ends_in="1.0", instead="")
    assert len(caught) == 1
