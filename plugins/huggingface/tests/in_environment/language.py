"""A vision-language model of a few thousand parameters, with a tokenizer of its own, and a set to teach it.

`python language.py FILE` writes the model as the plugin's portable file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from eagleray.contract import Dataset, Split

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 80, 230)}
WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "what", "colour", "?", *COLOURS, "describe", "the", "picture", "."]
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
)


def make_model() -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A LLaVA of random weights that knows twelve words."""
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    pictures = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, image_size=16, patch_size=8, projection_dim=32, **shape
        ),
        text_config=LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            intermediate_size=64,
            num_key_value_heads=2,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            **shape,
        ),
        image_token_id=WORDS.index("<image>"),
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, 0
    return model, processor


def write_model(folder: Path) -> Path:
    """The model as `save_pretrained` writes it."""
    for part in make_model():
        part.save_pretrained(folder)
    return folder


def write_conversations(root: Path, rows: int = 24) -> Dataset:
    """Plain pictures and the question for their colour, in each of the ways in which a row may say it."""
    splits = {}
    for split, count in (("train", rows), ("val", 6)):
        folder = root / "images" / split
        folder.mkdir(parents=True)
        lines = []
        for number in range(count):
            name = list(COLOURS)[number % len(COLOURS)]
            shade = number % 7
            Image.new("RGB", (20, 20), tuple(value + shade for value in COLOURS[name])).save(folder / f"{number}.png")
            asked = {"prompt": "what colour ?", "answer": name}
            talk = [{"role": "user", "content": "what colour ?"}, {"role": "assistant", "content": name}]
            lines.append({"image": f"{number}.png", **(asked if number % 2 else {"messages": talk})})
        (root / f"{split}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        splits[split] = Split(f"images/{split}", count, count, annotations=f"{split}.jsonl")
    return Dataset(path=root, format="jsonl", task="image-text-to-text", classes=(), splits=splits)


if __name__ == "__main__":
    from eagleray_huggingface import portable

    about = {"task": "image-text-to-text", "kind": "", "classes": [], "lora": None}
    portable.write(Path(sys.argv[1]), *make_model(), about)
