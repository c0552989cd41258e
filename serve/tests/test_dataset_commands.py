"""`eagleray datasets` with a server: nothing goes to this machine's own store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from eagleray.cli.app import main
from eagleray.client import Client
from eagleray.client import datasets as client_datasets
from eagleray.registry import DatasetRegistry
from eagleray.testing.data import write_detection_dataset
from eagleray_serve import dataset_tasks

from .conftest import Serve
from .fake import FakePlane

Run = Callable[..., tuple[int, Any]]
PART = 1000


@pytest.fixture
def address(serve: Serve, plane: FakePlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EAGLERAY_HOME", str(tmp_path / "laptop"))
    monkeypatch.setenv("EAGLERAY_API_KEY", plane.key("anna", ["read", "write"]))
    monkeypatch.delenv("EAGLERAY_STORAGE", raising=False)
    return f"http://{serve()}"


@pytest.fixture
def run(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The exit code, and what `--json` printed."""
    monkeypatch.setenv("EAGLERAY_SERVER", address)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def command(*arguments: object) -> tuple[int, Any]:
        code = main(["datasets", *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_detection_dataset(tmp_path / "data" / "coins")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dataset_lives_its_life_at_the_server(run: Run, folder: Path, tmp_path: Path) -> None:
    code, imported = run("import", folder, "--note", "first")
    assert (code, imported["created"], imported["number"], imported["source"]["type"]) == (0, True, 1, "upload")
    first = contents(folder)
    (folder / "train/labels/train-0000.txt").write_text("0 .5 .5 .1 .1\n")
    assert run("import", folder)[1]["number"] == 2
    assert [(found["name"], found["version"]) for found in run("list")[1]] == [("coins", 2)]
    shown = run("show", "coins@1", "--files")[1]
    assert (shown["note"], shown["versions"], set(shown["files"])) == ("first", [2, 1], set(first))
    assert run("compare", "1", "coins")[1]["changed"] == ["train/labels/train-0000.txt"]
    assert run("validate", "coins@1")[1]["errors"] == 0
    assert run("preview", "coins", "--images", "2", "--out", tmp_path / "p.png")[0] == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert run("export", "coins@1", tmp_path / "out")[0] == 0
    assert contents(tmp_path / "out") == first
    assert run("export", "coins@1", tmp_path / "coco", "--format", "coco")[0] == 0
    assert run("convert", "coins@1", "voc", tmp_path / "voc", "--class", "a")[1]["lost"] == []
    assert run("validate", tmp_path / "coco")[1]["format"] == "coco"
    assert run("validate", tmp_path / "voc")[1]["classes"] == ["a"]
    assert run("delete", "coins@1", "--yes")[0] == 0
    assert run("delete", "coins", "--yes")[0] == 0
    assert run("list")[1] == []
    assert not (tmp_path / "laptop" / "storage").exists()


def test_a_deletion_in_the_background_is_waited_for(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("import", folder)
    delete = DatasetRegistry.delete

    def slowly(*arguments: Any, **options: Any) -> None:
        time.sleep(0.3)
        delete(*arguments, **options)

    monkeypatch.setattr(DatasetRegistry, "delete", slowly)
    monkeypatch.setattr(dataset_tasks, "PATIENCE_S", 0.01)
    assert run("delete", "coins", "--yes") == (0, {"deleted": "coins"})
    assert run("list")[1] == []


def test_what_is_changed_on_the_way_in_is_changed_at_the_server(run: Run, folder: Path) -> None:
    code, imported = run("import", folder, "-n", "ones", "--class", "a", "--rename", "a=penny")
    assert (code, imported["classes"]) == (0, ["penny"])


def test_faults_end_with_the_code_they_have_here_and_may_be_mended(run: Run, folder: Path) -> None:
    with (folder / "train/labels/train-0000.txt").open("a") as file:
        file.write("0 5 5 1 1\n")
    code, refused = run("import", folder)
    assert (code, "train-0000.txt" in refused["error"]["message"]) == (3, True)
    assert len(run("import", folder, "--fix")[1]["mended"]) == 1


def test_a_stored_version_is_mended_there(run: Run, folder: Path) -> None:
    label = folder / "train/labels/train-0000.txt"
    label.write_text(label.read_text().splitlines()[0] + "\n" + label.read_text().splitlines()[0] + "\n")
    run("import", folder)
    code, mended = run("validate", "coins", "--fix")
    assert (code, mended["number"], len(mended["mended"])) == (0, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["validate", "coins", "--format", "yolo"], 2, "export the version"),
        (["preview", "coins", "--task", "object-detection"], 2, "export the version"),
        (["compare", "coins", "other"], 2, "other@1"),
        (["show", "coin"], 2, "Did you mean 'coins'"),
        (["show", "coins@9"], 2, "It has 1"),
        (["import", "nowhere"], 3, "Name a folder"),
        (["export", "coins", "/tmp"], 3, "Name a folder"),
        (["delete", "coins"], 2, "--yes"),
    ],
)
def test_what_does_not_work_says_so(arguments: list[str], code: int, words: str, run: Run, folder: Path) -> None:
    run("import", folder)
    found, said = run(*arguments)
    assert (found, words in said["error"]["message"] + said["error"]["hint"]) == (code, True), said


def test_an_upload_that_broke_off_goes_on_in_another_process(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_datasets, "PART_BYTES", PART)
    file = tmp_path / "coins.zip"
    file.write_bytes(bytes(range(256)) * 20)
    sent: list[str] = []

    class Breaking(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "PUT":
                sent.append(request.url.path.rpartition("/")[2])
                if len(sent) == 4:
                    raise KeyboardInterrupt
            return super().handle_request(request)

    with Client(address, transport=Breaking()) as client, pytest.raises(KeyboardInterrupt):
        client.datasets.upload(file)
    steps: list[int] = []
    with Client(address, transport=Breaking()) as client:
        upload_id = client.datasets.upload(file, progress=lambda stage, done, _: steps.append(done))
        received = client._get(f"/api/v1/uploads/{upload_id}")["received"]
    assert sent == ["0", "1000", "2000", "3000", "3000", "4000", "5000"]
    assert received == [[0, 5120]]
    assert steps[-1] == 5120


def test_a_part_that_was_damaged_on_its_way_is_sent_again(address: str, tmp_path: Path) -> None:
    file = tmp_path / "coins.zip"
    file.write_bytes(b"content")
    damaged: list[bytes] = []

    class Flipping(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "PUT" and not damaged:
                damaged.append(request.content)
                request = httpx.Request("PUT", request.url, headers=request.headers, content=b"cOntent")
            return super().handle_request(request)

    with Client(address, transport=Flipping()) as client:
        client.datasets.upload(file)
    assert damaged == [b"content"]
