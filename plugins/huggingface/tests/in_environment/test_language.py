"""A vision-language model is taught to name colours."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagleray.contract import ConfigError, DatasetError, TrainingContext
from eagleray.testing.host import RecordingHost

from conftest import again, assert_same, make_context, state_of, train  # isort: skip
from language import COLOURS, write_conversations, write_model  # isort: skip


def context_of(tmp_path: Path, host: RecordingHost, **changes: object) -> TrainingContext:
    model = write_model(tmp_path / "model")
    dataset = write_conversations(tmp_path / "data")
    config = {"workers": 0, "lora": {"r": 8, "dropout": 0.0}, **changes.pop("config", {})}  # type: ignore[dict-item]
    values = {"model": str(model), "pretrained": True, "batch_size": 6, "config": config, **changes}
    return make_context(tmp_path / "run", dataset, host, **values)


def test_a_model_learns_to_answer_and_the_predictor_says_what_it_learnt(tmp_path: Path) -> None:
    from eagleray_huggingface.predictor import HuggingFacePredictor

    host = RecordingHost(tmp_path / "host")
    config = {"lora": None, "freeze_vision": False, "generate_samples": 6, "max_new_tokens": 4}
    final = train(context_of(tmp_path, host, epochs=25, learning_rate=5e-3, config=config))
    assert final["metrics/exact_match"] == 1.0 and final["metrics/token_accuracy"] == 1.0
    checkpoint = host.reports[-1].checkpoint
    assert checkpoint is not None
    predictor = HuggingFacePredictor(checkpoint / "model.pt")
    answers = [
        predictor.predict(tmp_path / "data" / "images" / "val" / f"{number}.png", prompt="what colour ?")
        for number in range(3)
    ]
    assert [answer[0]["text"].strip() for answer in answers] == list(COLOURS)


def test_adapters_are_trained_and_the_model_below_stays_as_it_was(tmp_path: Path) -> None:
    host = RecordingHost(tmp_path / "host")
    context = context_of(tmp_path, host, epochs=1)
    train(context)
    from safetensors.torch import load_file

    kept = state_of(host)
    assert kept["lora"]["r"] == 8
    start = load_file(Path(context.model.name) / "model.safetensors")
    name = "language_model.layers.0.self_attn.q_proj"
    base = next(tensor for key, tensor in kept["state_dict"].items() if key.endswith(f"{name}.base_layer.weight"))
    assert any(tensor.shape == base.shape and bool((tensor == base).all()) for tensor in start.values())
    trained = [tensor for key, tensor in kept["state_dict"].items() if f"{name}.lora_B" in key]
    assert trained and bool(trained[0].any())


def test_a_resumed_run_with_adapters_ends_where_the_uninterrupted_one_does(tmp_path: Path) -> None:
    whole, first, second = (RecordingHost(tmp_path / name) for name in ("whole", "first", "second"))
    context = context_of(tmp_path, whole, epochs=4)
    train(context)
    first.stop_after_steps = 9
    train(again(context, tmp_path / "b", first))
    train(again(context, tmp_path / "c", second, resume=first.resume()))
    assert [report.metrics for report in second.reports] == [report.metrics for report in whole.reports[2:]]
    assert_same(state_of(second)["state_dict"], state_of(whole)["state_dict"])


def test_nothing_but_the_answer_is_learnt(tmp_path: Path) -> None:
    import torch
    from transformers import AutoProcessor

    from eagleray_huggingface.annotations import read_split
    from eagleray_huggingface.models import build
    from eagleray_huggingface.source import find_source
    from eagleray_huggingface.tasks.text import IGNORED, Text

    context = context_of(tmp_path, RecordingHost(tmp_path / "host"))
    built = build(context, find_source(context))
    task = Text(context, built.model, built.processor)
    rows = [task.load(picture, True) for picture in read_split(context.dataset, "train")[:2]]
    labels = task.collate(rows)["labels"]
    tokenizer = AutoProcessor.from_pretrained(context.model.name).tokenizer
    learnt = [tokenizer.convert_ids_to_tokens(row[row != IGNORED].tolist()) for row in labels]
    assert learnt == [["red", "</s>"], ["green", "</s>"]]
    assert torch.equal(labels == IGNORED, labels < 0)


def test_a_conversation_that_is_too_long_is_named(tmp_path: Path) -> None:
    context = context_of(tmp_path, RecordingHost(tmp_path / "host"), config={"max_length": 16})
    (context.dataset.path / "train.jsonl").write_text('{"image": "0.png", "answer": "' + "red " * 20 + '"}\n')
    with pytest.raises(DatasetError, match=r"0\.png.*max_length is 16"):
        train(context)


def test_adapters_that_fit_no_layer_are_refused(tmp_path: Path) -> None:
    config = {"lora": {"target_modules": ["nowhere"]}}
    with pytest.raises(ConfigError, match="target_modules"):
        train(context_of(tmp_path, RecordingHost(tmp_path / "host"), config=config))
