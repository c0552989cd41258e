"""Datasets in every form that the plugin says it trains from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from eagleray.contract import Dataset, DatasetError, Split
from eagleray.testing.host import RecordingHost
from eagleray_huggingface.annotations import Picture, read_split

from conftest import (  # isort: skip
    CLASSIFICATION,
    DETECTION,
    FRAMEWORK,
    tiny_context,
    train,
    write_dataset,
    write_json,
)
from language import write_conversations  # isort: skip

BOX = [8.0, 8.0, 20.0, 30.0]


def write_coco(root: Path, categories: tuple[str, ...] = ("a", "b")) -> Dataset:
    """Two pictures of one object each, of the last category; the dataset's classes are `a` and `b`."""
    root.mkdir()
    images, entries = [], []
    for number in (1, 2):
        Image.new("RGB", (64, 64), (200, 40 * number, 40)).save(root / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        entries.append({"id": number, "image_id": number, "category_id": len(categories), "bbox": BOX, "area": 600.0})
    named = [{"id": number, "name": name} for number, name in enumerate(categories, start=1)]
    write_json(root / "all.json", {"images": images, "annotations": entries, "categories": named})
    splits = {name: Split(".", 2, 2, annotations="all.json") for name in ("train", "val")}
    return Dataset(path=root, format="coco", task=DETECTION, classes=("a", "b"), splits=splits)


WRITERS = {
    "coco": write_coco,
    "dice": lambda root: write_dataset(root, DETECTION),
    "imagefolder": lambda root: write_dataset(root, CLASSIFICATION),
    "jsonl": write_conversations,
}


@pytest.mark.parametrize("form", FRAMEWORK.dataset_formats)
def test_every_declared_form_is_read(tmp_path: Path, form: str) -> None:
    pictures = read_split(WRITERS[form](tmp_path / "data"), "train")
    assert pictures and all(picture.path.is_file() for picture in pictures)
    assert all(picture.things or picture.turns or picture.class_id >= 0 for picture in pictures)


def test_a_coco_category_that_no_object_has_is_no_class(tmp_path: Path) -> None:
    pictures = read_split(write_coco(tmp_path / "data", categories=("shapes", "a", "b")), "train")
    assert [thing.class_id for picture in pictures for thing in picture.things] == [1, 1]


@pytest.mark.parametrize("processes", [0, 2])
def test_a_broken_picture_is_named_in_one_sentence(tmp_path: Path, processes: int) -> None:
    dataset = write_dataset(tmp_path / "data", CLASSIFICATION)
    broken = min((dataset.path / "train" / "b").iterdir())
    broken.write_bytes(broken.read_bytes()[:60])
    context = tiny_context(
        tmp_path, "vit", dataset, RecordingHost(tmp_path / "host"), epochs=1, config={"workers": processes}
    )
    with pytest.raises(DatasetError, match=broken.name) as caught:
        train(context)
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


def turns_of(*turns: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    from eagleray_huggingface.tasks.text import to_last_answer

    return to_last_answer(Picture(Path("a.png"), turns=turns), "Describe it.")


def test_a_conversation_is_learnt_up_to_its_last_answer() -> None:
    asked, answered = ("user", "What colour?"), ("assistant", "Red.")
    assert turns_of(asked, answered, ("user", "Thank you.")) == (asked, answered)


def test_a_conversation_in_which_nobody_asks_gets_the_prompt_where_the_picture_is_shown() -> None:
    system, answered = ("system", "Be brief."), ("assistant", "Red.")
    assert turns_of(system, answered) == (system, ("user", "Describe it."), answered)
    assert turns_of(answered) == (("user", "Describe it."), answered)
    assert turns_of(answered, ("user", "Thank you.")) == (("user", "Describe it."), answered)


def test_a_conversation_without_an_answer_is_named() -> None:
    with pytest.raises(DatasetError, match=r"a\.png has no answer"):
        turns_of(("user", "What colour?"))


def test_rows_that_end_with_the_user_are_read(tmp_path: Path) -> None:
    dataset = write_conversations(tmp_path / "data")
    talk = [{"role": "user", "content": "what ?"}, {"role": "assistant", "content": "red"}]
    row = {"image": "0.png", "messages": [*talk, {"role": "user", "content": "describe"}]}
    (dataset.path / "train.jsonl").write_text(json.dumps(row))
    (picture,) = read_split(dataset, "train")
    assert turns_of(*picture.turns)[-1] == ("assistant", "red")
