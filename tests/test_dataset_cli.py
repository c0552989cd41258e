"""`eagleray datasets` from end to end, in this process."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eagleray.cli.app import main
from eagleray.datasets import convert
from eagleray.testing.data import write_detection_dataset, write_segmentation_dataset

Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_detection_dataset(tmp_path / "coins")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The exit code, and what `--json` printed."""
    monkeypatch.setenv("EAGLERAY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EAGLERAY_STORAGE", raising=False)
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> tuple[int, Any]:
        code = main(["datasets", *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return command


def test_an_import_is_listed_shown_and_exported(run: Run, folder: Path, tmp_path: Path) -> None:
    code, imported = run("import", folder, "--note", "first")
    assert (code, imported["created"], imported["name"], imported["number"]) == (0, True, "coins", 1)
    assert [found["name"] for found in run("list")[1]] == ["coins"]
    shown = run("show", "coins", "--files")[1]
    assert shown["versions"] == [1]
    assert shown["note"] == "first"
    assert run("export", "coins", tmp_path / "out")[0] == 0
    assert {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")} == set(
        shown["files"]
    )


def test_the_same_again_says_so(run: Run, folder: Path) -> None:
    run("import", folder)
    code, again = run("import", folder)
    assert (code, again["created"], again["number"]) == (0, False, 1)


def test_an_archive_is_imported_under_its_own_name(run: Run, folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "My coins.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, Path("wrapper") / path.relative_to(folder))
    code, imported = run("import", tmp_path / "My coins.zip")
    assert (code, imported["name"], sum(split["num_images"] for split in imported["splits"].values())) == (
        0,
        "My-coins",
        8,
    )


def test_versions_are_compared_by_classes(run: Run, folder: Path) -> None:
    run("import", folder)
    (folder / "train/labels/train-0000.txt").write_text("0 .5 .5 .1 .1\n" * 1 + "1 .5 .5 .1 .1\n" * 1)
    (folder / "train/labels/train-0001.txt").write_text("")
    run("import", folder)
    code, found = run("compare", "1", "coins")
    assert code == 0
    assert found["changed"] == ["train/labels/train-0000.txt", "train/labels/train-0001.txt"]
    assert found["classes"]["a"] != found["classes"]["b"]


def test_faults_refuse_an_import_and_fix_mends_it(run: Run, folder: Path, tmp_path: Path) -> None:
    with (folder / "train/labels/train-0000.txt").open("a") as file:
        file.write("0 5 5 1 1\n")
    code, refused = run("import", folder)
    assert code == 3
    assert "train-0000.txt" in refused["error"]["message"]
    code, report = run("validate", folder)
    assert (code, report["errors"]) == (3, 1)
    code, mended = run("import", folder, "--fix")
    assert (code, len(mended["mended"])) == (0, 1)
    assert run("validate", "coins@1")[0] == 0
    code, copy = run("validate", folder, "--fix", "--into", tmp_path / "copy")
    assert (code, copy["report"]["errors"]) == (0, 0)


def test_fix_of_a_version_makes_the_next_one(run: Run, folder: Path) -> None:
    label = folder / "train/labels/train-0000.txt"
    label.write_text(label.read_text().splitlines()[0] + "\n" + label.read_text().splitlines()[0] + "\n")
    run("import", folder)
    code, mended = run("validate", "coins@1", "--fix")
    assert (code, mended["created"], mended["number"], mended["note"]) == (0, True, 2, "coins@1, mended")


def test_classes_and_splits_may_change_on_the_way_in(run: Run, folder: Path) -> None:
    code, imported = run("import", folder, "-n", "ones", "--class", "a", "--rename", "a=penny")
    assert (code, imported["classes"]) == (0, ["penny"])
    for name in ("images", "labels"):
        for path in (folder / "valid" / name).iterdir():
            path.rename(folder / "train" / name / path.name)
        (folder / "valid" / name).rmdir()
    (folder / "valid").rmdir()
    assert run("import", folder)[0] == 3
    code, imported = run("import", folder, "--validation", "0.25")
    assert code == 0
    assert imported["splits"]["val"]["num_images"] == 2


def test_a_version_is_converted_previewed_and_exported_in_another_format(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    run("import", folder)
    assert run("convert", "coins@1", "voc", tmp_path / "voc")[1]["format"] == "voc"
    assert run("export", "coins", tmp_path / "coco", "--format", "coco")[0] == 0
    for name in ("voc", "coco"):
        assert run("validate", tmp_path / name)[1]["format"] == name
    assert run("preview", "coins@1", "--images", "4", "--out", tmp_path / "p.png")[0] == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_converted_version_is_no_part_of_the_nodes_cache(run: Run, folder: Path, tmp_path: Path) -> None:
    run("import", folder)
    run("convert", "coins@1", "voc", tmp_path / "voc")
    pictures = list((tmp_path / "voc").rglob("*.png"))
    assert pictures
    assert all(picture.stat().st_nlink == 1 for picture in pictures)


def test_deleting_asks_first_where_nobody_can_answer(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("import", folder)
    code, refused = run("delete", "coins")
    assert code == 2
    assert "--yes" in refused["error"]["hint"]
    assert run("delete", "coins", "--yes")[0] == 0
    assert run("list")[1] == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", "coin"], 2, "Did you mean 'coins'"),
        (["show", "coins@9"], 2, "It has 1"),
        (["show", "../x"], 2, "A name is"),
        (["import", "nowhere"], 3, "Name a folder"),
        (["import", "coins", "--name", "a/b"], 2, "A name is"),
        (["import", "http://example.org/x.zip"], 3, "public https address"),
        (["import", "https://169.254.169.254/x.zip"], 3, "public https address"),
        (["import", "coins", "--validation", "2"], 3, "Between 0 and 1"),
        (["import", "coins", "--rename", "a"], 2, "--rename one=two"),
        (["validate", "https://example.org/x.zip"], 2, "datasets import"),
        (["validate", "coins/", "--fix"], 2, "--into"),
        (["export", "coins", "coins"], 2, "not there yet"),
        (["convert", "coins", "yoko", "out"], 2, "yolo"),
    ],
)
def test_an_error_says_what_to_do(arguments: list[str], code: int, words: str, run: Run, folder: Path) -> None:
    run("import", folder)
    found, shown = run(*arguments)
    assert (found, words in shown["error"]["hint"]) == (code, True), shown


def test_listing_plugins_pays_for_none_of_it() -> None:
    code = """
import sys
from eagleray.cli.app import main
main(["plugins", "list", "--json"])
heavy = {"httpx", "boto3", "msgspec", "pycocotools", "PIL", "eagleray.registry", "eagleray.datasets"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("change", [["--fix"], ["--class", "a"]], ids=["mended", "edited"])
def test_an_import_that_changes_something_loses_masks_only_when_told(
    change: list[str], run: Run, tmp_path: Path
) -> None:
    convert(write_segmentation_dataset(tmp_path / "source"), "voc", tmp_path / "voc", allow_loss=True)
    for kind in ("SegmentationClass", "SegmentationObject"):
        (tmp_path / "voc" / kind / "train-0000.png").unlink()
    code, refused = run("import", "voc", *change)
    assert code == 3
    assert "masks" in refused["error"]["message"]
    assert "--allow-loss" in refused["error"]["hint"]
    assert run("import", "voc", *change, "--allow-loss")[0] == 0


def test_a_plain_import_keeps_masks_and_names_what_is_not_read(run: Run, tmp_path: Path) -> None:
    convert(write_segmentation_dataset(tmp_path / "source"), "voc", tmp_path / "voc", allow_loss=True)
    (tmp_path / "voc/SegmentationClass/train-0000.png").unlink()
    code, imported = run("import", "voc")
    assert code == 0
    assert any("--task image-segmentation" in sentence for sentence in imported["warnings"])
    assert any(name.startswith("SegmentationClass/") for name in run("show", "voc", "--files")[1]["files"])
