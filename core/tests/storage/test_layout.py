"""Keys are those of the layout, and no name leads anywhere else."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from eagleray.storage import layout
from eagleray.storage.store import check_key


def test_the_layout_is_the_documented_one() -> None:
    assert layout.job_prefix(7, None) == "checkpoints/test-jobs/job_7"
    assert layout.job_prefix(7, "cats") == "checkpoints/projects/cats/jobs/7"
    assert layout.job_record_key(7) == "jobs/7.json"
    assert layout.best_key("p") == "p/best.pt"
    assert layout.last_key("p") == "p/last.pt"
    assert layout.metrics_key("p") == "p/metrics.jsonl"
    assert layout.checkpoint_prefix("p", 2, 3) == "p/attempts/2/epoch-00003"
    assert layout.manifest_key("p", 2, 3) == "p/attempts/2/epoch-00003/manifest.json"
    assert layout.log_key("p", "x.log") == "p/logs/x.log"
    assert layout.file_key("p", "results.png") == "p/files/results.png"
    assert layout.weights_key("ultralytics", "yolo11n") == "pretrained_weights/ultralytics/yolo11n.pt"


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(NAMES)
@example("..")
@example(".")
@example(".eagleray-tmp-1")
@example("../../etc")
def test_any_name_is_one_safe_part_of_a_key(name: str) -> None:
    assert check_key(layout.job_prefix(1, name)).count("/") == 4
    assert check_key(layout.weights_key("timm", name)).count("/") == 2


@given(NAMES, NAMES)
def test_different_names_never_share_a_key(one: str, other: str) -> None:
    assert (layout.quote_name(one) == layout.quote_name(other)) == (one == other)
