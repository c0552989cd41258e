"""A model that cannot train without further weights is refused before anything starts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from eagleray.contract.errors import WeightsError
from eagleray.jobs.plan import JobPlan, plan_job
from eagleray.jobs.spec import JobSpec
from eagleray.plugins.host import Catalogue, discover
from eagleray.settings import load_settings
from eagleray.storage.opening import open_store
from eagleray.testing.data import write_classification_dataset


def catalogue_in_need_of(weights: str) -> Catalogue:
    """What is installed, where echo's models need `weights`."""
    found = discover(load_settings())
    echo = found.framework("echo")
    cards = tuple(dataclasses.replace(card, further_weights=(weights,)) for card in echo.framework.models)
    framework = dataclasses.replace(echo.framework, models=cards)
    return dataclasses.replace(found, frameworks={"echo": dataclasses.replace(echo, framework=framework)})


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobPlan:
    """A plan of echo with a model that needs `encoder`."""
    monkeypatch.setenv("EAGLERAY_HOME", str(tmp_path / "home"))
    write_classification_dataset(tmp_path / "pictures", images=8, size=16)
    spec = JobSpec(
        framework="echo",
        model_name="echo-linear",
        dataset_path=str(tmp_path / "pictures"),
        epochs=1,
        batch_size=4,
        pretrained=False,
    )
    return plan_job(spec, catalogue_in_need_of("encoder"), open_store(str(tmp_path / "store")))


def test_the_sentence_says_where_to_put_the_file(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as refused:
        request.getfixturevalue("plan")
    assert f"{tmp_path}/store/pretrained_weights/echo/encoder.pt" in refused.value.message


def test_with_the_file_in_the_store_the_job_is_planned(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    file = tmp_path / "store" / "pretrained_weights" / "echo" / "encoder.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    assert request.getfixturevalue("plan").model.further_weights == ("encoder",)
