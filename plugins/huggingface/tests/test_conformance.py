"""The plugin contract's own suite: the description here, training in the plugin's environment."""

from __future__ import annotations

from typing import Any

import pytest

from eagleray.testing.conformance import Case, DescriptorConformance, TrainingConformance

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
        # Classes are a mean over the queries of a batch, of which each worker has half.
        workers_tolerance=0.05,
    ),
    Case(
        "image-segmentation",
        model="nvidia/segformer-b0-finetuned-ade-512-512",
        config={"config_overrides": SEGFORMER, "image_size": 64, "workers": 0},
        # Its decoder normalises over a batch, of which each worker has half.
        workers_config=ALIKE,
        workers_tolerance=0.05,
        learning_rate=1e-3,
    ),
)


class TestDescriptor(DescriptorConformance):
    plugin = "eagleray_huggingface"


@pytest.mark.framework
@pytest.mark.slow
@pytest.mark.timeout(3000)
class TestTraining(TrainingConformance):
    plugin = "eagleray_huggingface"
    cases = CASES
