from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eagleray.contract.errors import ConfigError
from eagleray.registry.keys import name_key
from eagleray.registry.names import Reference, check_name, is_reference, new_id, parse_reference
from eagleray.storage.store import check_key

# S4 of the list of attacks.
BAD = [
    "",
    "../x",
    "..%2f",
    "%2e%2e",
    "/etc/passwd",
    "a\0b",
    "C:\\x",
    "x" * 300,
    "c\u043eins",
    "#frag",
    "?q",
    ".hidden",
    "-rf",
    "a b",
    "a\nb",
    "a/b",
    "\uff41",
]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_could_mean_something_else_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be called"):
        check_name(name)
    with pytest.raises(ConfigError):
        parse_reference(name)
    assert not is_reference(name)


def test_a_name_cannot_read_like_an_id() -> None:
    with pytest.raises(ConfigError, match="reads like an id"):
        check_name(new_id().upper())


def test_a_name_cannot_be_a_word_of_the_http_api() -> None:
    with pytest.raises(ConfigError, match="'imports', which is an address of its own") as caught:
        check_name("imports")
    assert "--name" in caught.value.hint
    assert check_name("imports2") == "imports2"


@pytest.mark.parametrize("text", ["coins@", "coins@0", "coins@-1", "coins@latest", "coins@1@2", "coins@1.5", "@1"])
def test_a_version_is_a_number_from_one(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_reference(text)
    assert not is_reference(text)


def test_a_reference_names_a_dataset_and_perhaps_a_version() -> None:
    assert parse_reference("coins") == Reference("coins", None)
    assert parse_reference("coins@12") == Reference("coins", 12)
    assert str(parse_reference("coins@12")) == "coins@12"


@given(st.text(max_size=120))
def test_any_text_is_refused_or_makes_a_key_below_the_names(text: str) -> None:
    try:
        check_name(text)
    except ConfigError:
        return
    assert check_key(name_key(text)).startswith("dataset_names/")
