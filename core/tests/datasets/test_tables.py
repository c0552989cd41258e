"""CSV for classification and JSON lines for vision-language models, from strangers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from eagleray.contract import EaglerayError
from eagleray.datasets import convert, detect_format, open_dataset, read_dataset, validate

Refusal = Callable[..., str]
FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"images/{number}.png")
    return tmp_path


ROWS = "image,label,split\n0.png,dog,train\n1.png,cat,train\n2.png,cat,val\n3.png,dog,val\n"


def table(root: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    path = root / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rows_are_pictures_and_classes_are_in_the_order_of_their_names(pictures: Path) -> None:
    table(pictures, ROWS)

    report = read_dataset(pictures, "classify")

    assert detect_format(pictures) == "csv"
    assert report.dataset.classes == ("cat", "dog")
    assert {name: split.num_annotations for name, split in report.dataset.splits.items()} == {"train": 2, "val": 2}
    assert report.warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        ROWS.replace("\n", "\r\n"),
        b"\xef\xbb\xbf" + ROWS.encode(),
        ROWS.replace("image,label,split", "Filename, Class ,SET").replace("0.png", "images/0.png"),
        ROWS.replace("0.png,dog", '"0.png","dog"') + "\n  \n",
        ROWS.replace("0.png", "./0.png").replace("val", "valid"),
    ],
)
def test_the_tables_that_programs_write_are_read(text: str | bytes, pictures: Path) -> None:
    if isinstance(text, str) and "images/0.png" in text:
        text = text.replace("\n1", "\nimages/1").replace("\n2", "\nimages/2").replace("\n3", "\nimages/3")
    table(pictures, text)

    assert read_dataset(pictures, "classify").dataset.num_annotations == 4


def test_a_table_for_each_split_is_read(pictures: Path) -> None:
    table(pictures, "image,label\n0.png,dog\n1.png,cat\n", "train.csv")
    table(pictures, "image,label\n2.png,dog\n3.png,cat\n", "valid.csv")

    assert set(read_dataset(pictures, "classify").dataset.splits) == {"train", "val"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ROWS + "9.png,cat,train\n", "labels.csv:6: the picture 9.png is not in images/"),
        (ROWS + "../../etc/passwd,cat,train\n", "labels.csv:6: the picture ../../etc/passwd is not in"),
        (ROWS + "0.png,cat,train\n", "labels.csv:6: the picture 0.png a second time"),
        (ROWS + "0.png\n", "labels.csv:6: 1 columns instead of 3"),
        (ROWS + ",cat,train\n", "labels.csv:6: an empty picture or class"),
        (ROWS + "0.png,,train\n", "labels.csv:6: an empty picture or class"),
        (ROWS + "0.png,cat,nowhere\n", "labels.csv:6: the split 'nowhere'"),
        (ROWS + '0.png,"cat,train\n', "not CSV"),
        (ROWS + "x" * 200_000 + ",cat,train\n", "not CSV"),
        (ROWS.encode() + b"\xff.png,cat,train\n", "not CSV"),
        (ROWS.encode("utf-16"), "UTF-16, not UTF-8"),
        ("image,label,split\n", "has no row"),
    ],
)
def test_a_faulty_table_is_refused_with_its_line(
    text: str | bytes, words: str, pictures: Path, refusal: Refusal
) -> None:
    table(pictures, text)

    assert words in refusal(pictures, "classify", "csv")


def test_a_table_without_a_column_of_classes_is_none(pictures: Path, refusal: Refusal) -> None:
    table(pictures, "image,width\n0.png,8\n")

    assert "no CSV file with pictures and classes" in refusal(pictures, "classify", "csv")


@FUZZ
@given(content=st.one_of(st.binary(max_size=80), st.text("0.png,cat\n\"'\r train", max_size=60).map(str.encode)))
def test_any_bytes_in_a_table_give_a_report_or_our_own_error(content: bytes, pictures: Path) -> None:
    table(pictures, b"image,label,split\n" + content)
    try:
        validate(pictures, "classify", "csv")
    except EaglerayError:
        pass


def lines(root: Path, rows: list[Any], name: str = "train.jsonl") -> None:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    (root / name).write_text(text)


ASKED = {"image": "images/0.png", "prompt": "What is it?", "answer": "A cat."}


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        (ASKED, (("user", "What is it?"), ("assistant", "A cat."))),
        ({"image": "images/0.png", "question": "q", "answer": "a"}, (("user", "q"), ("assistant", "a"))),
        ({"file_name": "images/0.png", "text": "A cat."}, (("assistant", "A cat."),)),
        ({"image": "images/0.png", "caption": "A cat."}, (("assistant", "A cat."),)),
        (
            {
                "image": "images/0.png",
                "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            },
            (("user", "q"), ("assistant", "a")),
        ),
        (
            {
                "image": "images/0.png",
                "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
            },
            (("user", "q"), ("assistant", "a")),
        ),
        (
            {
                "image": "images/0.png",
                "messages": [
                    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]},
                    {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
                ],
            },
            (("user", "q"), ("assistant", "a")),
        ),
    ],
)
def test_the_rows_that_the_field_writes_are_read(row: Any, turns: Any, pictures: Path) -> None:
    lines(pictures, [row])

    source, findings = open_dataset(pictures, None)
    (record,) = source.records("train")

    findings.raise_faults()
    assert source.info.task == "image-text-to-text"
    assert record.annotations[0].turns == turns


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "a list instead of an object"),
        ({"prompt": "x"}, "no `image`"),
        ({"image": "images/9.png", "answer": "x"}, "the picture images/9.png is not in"),
        ({"image": "../secret.png", "answer": "x"}, "is not in"),
        ({"image": "images/0.png"}, "no answer"),
        ({"image": "images/0.png", "prompt": "x"}, "no answer"),
        ({"image": "images/0.png", "answer": 5}, "text is a int"),
        ({"image": "images/0.png", "messages": "x"}, "`messages` is not a list"),
        ({"image": "images/0.png", "messages": ["x"]}, "a message is not an object"),
        ({"image": "images/0.png", "messages": [{"role": "robot", "content": "x"}]}, "the role robot"),
        ({"image": "images/0.png", "answer": "x" * (1 << 20)}, "a row longer than"),
    ],
)
def test_a_faulty_row_is_refused_with_its_line(row: Any, words: str, pictures: Path, refusal: Refusal) -> None:
    lines(pictures, [ASKED], "valid.jsonl")
    lines(pictures, [ASKED, "", row, ASKED])

    message = refusal(pictures, "image-text-to-text")

    assert words in message
    assert "train.jsonl:3: " in message


def test_conversations_stay_through_a_copy_and_a_picture_of_two_rows_is_placed_once(
    pictures: Path, tmp_path: Path
) -> None:
    lines(pictures, [ASKED, ASKED | {"prompt": "Where?", "answer": "On a ‘mat’ 🐈"}, ASKED | {"image": "images/1.png"}])
    lines(pictures, [ASKED | {"image": "images/2.png"}], "valid.jsonl")

    report = convert(pictures, "jsonl", tmp_path / "copy")

    before, after = (
        [
            each.turns
            for s in ("train", "val")
            for record in open_dataset(root, None)[0].records(s)
            for each in record.annotations
        ]
        for root in (pictures, tmp_path / "copy")
    )
    assert before == after
    assert report.annotations == 4
    assert len(list((tmp_path / "copy/images").rglob("*.png"))) == 3
    assert validate(tmp_path / "copy").errors == 0


@FUZZ
@given(content=st.one_of(st.binary(max_size=80), st.text('{}[]":,imagesx0.pn \n', max_size=60).map(str.encode)))
def test_any_bytes_in_rows_give_a_report_or_our_own_error(content: bytes, pictures: Path) -> None:
    (pictures / "train.jsonl").write_bytes(content)
    try:
        validate(pictures, "image-text-to-text", "jsonl")
    except EaglerayError:
        pass
