"""`data.yaml` from a stranger: bounded, plain, and every fault with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eagleray.contract import DatasetError
from eagleray.datasets import read_dataset
from eagleray.datasets.yaml import read_yaml
from eagleray.testing.data import write_detection_dataset


def refusal(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "data.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError) as caught:
        read_yaml(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("names: [a, b\nnc: 2\n", "data.yaml:2:3 is not YAML"),
        ("names:\n\t- a\n", "data.yaml:2:1 is not YAML"),
        ("a: 1\nb: &x [1]\nc: *x\n", "data.yaml:3:4 has the alias *x"),
        ("a: !!python/object/apply:os.system ['touch pwned']\n", "data.yaml:1:4 has the tag"),
        ("a: !mine 3\n", "has the tag !mine"),
        ("nc: 1\nnc: 2\n", "data.yaml:2:1 has the key 'nc' a second time"),
        ("? [a]\n: b\n", "a key that is not plain text"),
        ("a: 1\n---\nb: 2\n", "a second document"),
        ("[" * 100 + "]" * 100, "nesting deeper than 16"),
        ("- a\n", "holds no mapping"),
        ("", "holds no mapping"),
        (b"names: [\xff]\n", "data.yaml:1 is not UTF-8"),
        (b"names: [\x00]\n", "is not YAML"),
        ("a: '" + "x" * (1 << 20) + "'", "larger than"),
    ],
)
def test_what_is_not_plain_small_yaml_is_refused_with_its_place(
    content: str | bytes, words: str, tmp_path: Path
) -> None:
    assert words in refusal(tmp_path, content)


def test_a_billion_laughs_are_refused_at_the_first(tmp_path: Path) -> None:
    lines = ["a: &a [lol]"]
    lines += [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdef", "bcdefg", strict=True)
    ]

    assert "data.yaml:2:8 has the alias *a" in refusal(tmp_path, "\n".join(lines))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=200), st.text("[]{}:,-&*!|>'\"\n\t #ab?%01", max_size=60).map(str.encode)))
def test_any_bytes_give_a_mapping_or_a_dataset_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_bytes(content)
    try:
        assert isinstance(read_yaml(path), dict)
    except DatasetError as error:
        assert "data.yaml" in error.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nc: 2\n", "names is missing"),
        ("names: cat\n", "names is cat"),
        ("names: []\n", "names is"),
        ("names: [a, '']\n", "names is"),
        ("names: [a, [b]]\n", "names is"),
        ("names: {0: a, 2: b}\n", "the ids of names are 0, 2"),
        ("names: {a: 0, b: 1}\n", "the ids of names are a, b"),
        ("names: {0: a, 00: b}\n", "the ids of names are 0, 00"),
        ("nc: 3\nnames: [a, b]\n", "nc is 3, but names has 2"),
        ("nc: two\nnames: [a, b]\n", "nc is two, but names has 2"),
        ("names: [a, b]\ntrain: [x/images, y/images]\n", "train is"),
        ("names: [a, b]\ntrain: train.txt\n", "list of files train.txt"),
    ],
)
def test_a_faulty_description_is_refused_with_the_value(text: str, words: str, tmp_path: Path) -> None:
    root = write_detection_dataset(tmp_path)
    (root / "data.yaml").write_text(text)

    with pytest.raises(DatasetError) as caught:
        read_dataset(root, "detect")

    assert words in caught.value.message
    assert caught.value.hint


def test_a_download_key_is_ignored_with_a_warning(tmp_path: Path) -> None:
    root = write_detection_dataset(tmp_path)
    with (root / "data.yaml").open("a") as file:
        file.write("download: |\n  import os; os.system('touch pwned')\n")

    assert "`download`" in read_dataset(root, "detect").warnings[0]


def test_a_class_named_twice_is_said(tmp_path: Path) -> None:
    root = write_detection_dataset(tmp_path)
    (root / "data.yaml").write_text("names: [a, a]\n")

    assert "names a class twice: a" in read_dataset(root, "detect").warnings[0]
