"""The half of the contract's suite that trains, in the plugin's environment; the other is in `test_descriptor.py`."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract import Dataset
from eagleray.datasets.read import read_dataset
from eagleray.testing.conformance import Case, TrainingConformance
from eagleray.testing.data import write_classification_dataset

LANGUAGE = Path(__file__).parent / "in_environment" / "language.py"
PLAIN: dict[str, Any] = {"horizontal_flip": 0.0, "crop": 1.0}
VIT = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64, "patch_size": 8}
DETR = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "num_queries": 8,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "dropout": 0.0,
    "backbone_config": {
        "model_type": "resnet",
        "depths": [1, 1],
        "hidden_sizes": [16, 32],
        "embedding_size": 16,
        "layer_type": "basic",
        "out_features": ["stage2"],
    },
}
SEGFORMER = {
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "decoder_hidden_size": 32,
    "num_attention_heads": [1, 1, 1, 1],
    "classifier_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
}


class Conversations(Case):
    """A language model of a few thousand parameters, and made pictures with a question and an answer each."""

    def prepared(self, python: str, code: Path, folder: Path) -> Case:
        weights = folder / "weights.pt"
        environ = {"PYTHONPATH": str(code), "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([python, str(LANGUAGE), str(weights)], env=environ, cwd=folder, check=True)
        return replace(self, weights=weights)

    def write_dataset(self, root: Path, images: int) -> Dataset:
        write_classification_dataset(root, images=images, size=self.image_size)
        # Of unlike lengths: what is a mean over tokens is not one over samples.
        answers = {"a": "red", "b": "the picture is green ."}
        for split in ("train", "valid"):
            rows = [
                {"image": str(path.relative_to(root)), "prompt": self.prompt, "answer": answers[path.parent.name]}
                for path in sorted((root / split).rglob("*.png"))
            ]
            (root / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return read_dataset(root, self.task).dataset


# Gradients of two halves add up in another order than those of the whole, which Adam makes larger.
ALIKE = {"optim": "sgd", "max_grad_norm": 0.0, "augment": PLAIN}
CASES = (
    Case(
        "image-classification",
        model="google/vit-base-patch16-224",
        config={"config_overrides": VIT, "image_size": 32, "workers": 1, "augment": {"crop": 0.5, "rand_augment": 1}},
        workers_config=ALIKE,
        learning_rate=1e-3,
    ),
    Case(
        "object-detection",
        model="facebook/detr-resnet-50",
        config={"config_overrides": DETR, "image_size": 64, "workers": 0},
        workers_config=ALIKE,
        learning_rate=1e-3,
        # Classes are a mean over the queries of a batch, of which each worker has half: only batches that can be halved
        # can be compared.
        workers_images=16,
        workers_tolerance=0.05,
    ),
    Case(
        "image-segmentation",
        model="nvidia/segformer-b0-finetuned-ade-512-512",
        config={"config_overrides": SEGFORMER, "image_size": 64, "workers": 0},
        # Its decoder normalises over a batch, of which each worker has half; as above.
        workers_config=ALIKE,
        workers_images=16,
        workers_tolerance=0.05,
        learning_rate=1e-3,
    ),
    Conversations(
        "image-text-to-text",
        model="llava-hf/llava-1.5-7b-hf",
        config={"workers": 0, "lora": {"r": 4, "dropout": 0.0}},
        workers_config={"optim": "sgd", "max_grad_norm": 0.0},
        learning_rate=1e-3,
        prompt="what colour ?",
    ),
)


@pytest.mark.framework
@pytest.mark.slow
@pytest.mark.timeout(3000)
class TestTraining(TrainingConformance):
    plugin = "eagleray_huggingface"
    cases = CASES
