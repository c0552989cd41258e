"""Text about a picture: supervised fine-tuning of vision-language models on conversations."""

from __future__ import annotations

from typing import Any

import torch

from eagleray.contract import DatasetError
from eagleray_huggingface.annotations import Picture
from eagleray_huggingface.scores import Score, TextScore
from eagleray_huggingface.tasks.base import TRUTH, Batch, Task, opened

IGNORED = -100


class Text(Task):
    """`input_ids`, `attention_mask`, `labels` int64 `[B, L]` and what the model's processor makes of the picture.

    Labels are -100 for padding, the picture's tokens and, unless `train_on_prompt`, all that comes before the answer.
    """

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.fixed = {}
        self.last: list[Batch] = []
        self.generated = 0
        self.processor.tokenizer.padding_side = "right"
        if self.processor.tokenizer.pad_token is None:
            self.processor.tokenizer.pad_token = self.processor.tokenizer.eos_token
        self.picture_tokens = picture_tokens(self.model.config, self.processor)

    def load(self, picture: Picture, train: bool) -> Batch:
        turns = to_last_answer(picture, self.config.prompt)
        return {"image": opened(picture), "turns": turns, "path": picture.path, "train": train}

    def collate(self, rows: list[Batch]) -> Batch:
        images = [[row["image"]] for row in rows]
        whole = [written(self.processor, row["turns"], answer=True) for row in rows]
        batch = dict(self.processor(text=whole, images=images, return_tensors="pt", padding=True))
        self._refuse_long(batch["input_ids"], rows)
        labels = batch["input_ids"].clone()
        labels[batch["attention_mask"] == 0] = IGNORED
        for token in self.picture_tokens:
            labels[batch["input_ids"] == token] = IGNORED
        if not self.config.train_on_prompt:
            for number, row in enumerate(rows):
                asked = written(self.processor, row["turns"][:-1], answer=False)
                prompt = self.processor(text=[asked], images=[images[number]], return_tensors="pt")
                labels[number, : prompt["input_ids"].shape[1]] = IGNORED
        self._refuse_empty(labels, rows)
        batch["labels"] = labels
        if rows[0]["train"]:
            return batch
        return batch | {TRUTH: {"labels": labels, "rows": rows}}

    def _refuse_long(self, input_ids: torch.Tensor, rows: list[Batch]) -> None:
        if input_ids.shape[1] > self.config.max_length:
            longest = int((input_ids != self.processor.tokenizer.pad_token_id).sum(1).argmax())
            raise DatasetError(
                f"The conversation about {rows[longest]['path'].name} has {input_ids.shape[1]} tokens, its picture "
                f"included; max_length is {self.config.max_length}.",
                "Raise max_length, or shorten it.",
            )

    def _refuse_empty(self, labels: torch.Tensor, rows: list[Batch]) -> None:
        # The mean over no token is not a number.
        for row, learnt in zip(rows, (labels != IGNORED).any(dim=1).tolist(), strict=True):
            if not learnt:
                raise DatasetError(f"The conversation about {row['path'].name} has an empty answer.", "Give it one.")

    def items(self, batch: Batch) -> int:
        # As in the loss, the first token is nobody's guess.
        return int((batch["labels"][:, 1:] != IGNORED).sum())

    def score(self) -> Score:
        self.generated = 0
        return TextScore()

    def answers(self, outputs: Any, truth: Any) -> Any:
        self.last = truth["rows"]
        return outputs

    def finish_batch(self, score: Score, truth: Any) -> None:
        """Let the model answer the first `generate_samples` rows of this worker's share."""
        assert isinstance(score, TextScore)
        share = -(-self.config.generate_samples // self.context.world_size)
        for row in truth["rows"][: max(0, share - self.generated)]:
            self.generated += 1
            prompt = written(self.processor, row["turns"][:-1], answer=False)
            answer = generate(self.model, self.processor, row["image"], prompt, self.config.max_new_tokens)
            score.answered(answer, row["turns"][-1][1])


def to_last_answer(picture: Picture, prompt: str) -> tuple[tuple[str, str], ...]:
    """The turns of a picture's conversation up to its last answer, which is what is learnt.

    Where nobody asks, `prompt` does: the picture is shown with a question.

    Raises:
        DatasetError: nobody answers.
    """
    roles = [role for role, _ in picture.turns]
    if "assistant" not in roles:
        raise DatasetError(
            f"The conversation about {picture.path.name} has no answer to learn.", "Add what the assistant says."
        )
    turns = picture.turns[: len(roles) - roles[::-1].index("assistant")]
    if "user" in roles[: len(turns)]:
        return turns
    first = roles.index("assistant")
    return (*turns[:first], ("user", prompt), *turns[first:])


def written(processor: Any, turns: Any, *, answer: bool) -> str:
    """A conversation as the model's own template writes it, or plainly where it has none; the picture stands first.

    Without `answer` it ends where the model is to go on.
    """
    if processor.chat_template or processor.tokenizer.chat_template:
        text: str = processor.apply_chat_template(messages(turns), add_generation_prompt=not answer)
        return text
    parts = [text for _, text in turns]
    asked = f"{processor.image_token}{' '.join(parts[:-1] if answer else parts)}\n"
    return asked + (parts[-1] + processor.tokenizer.eos_token if answer else "")


def messages(turns: Any) -> list[dict[str, Any]]:
    """`(role, text)` as a chat template reads them; the picture comes before the first thing that the user says."""
    found: list[dict[str, Any]] = []
    shown = False
    for role, text in turns:
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if role == "user" and not shown:
            content.insert(0, {"type": "image"})
            shown = True
        found.append({"role": role, "content": content})
    return found


def picture_tokens(config: Any, processor: Any) -> list[int]:
    """Tokens that stand for the picture: nothing is learnt by guessing them."""
    named = (getattr(config, name, None) for name in ("image_token_id", "image_token_index"))
    own = getattr(processor, "image_token_id", None)
    return sorted({int(token) for token in (*named, own) if isinstance(token, int)})


def generate(model: Any, processor: Any, image: Any, prompt: str, max_new_tokens: int) -> str:
    """The model's most likely answer to a written prompt."""
    inputs = processor(text=[prompt], images=[[image]], return_tensors="pt").to(model.device)
    with torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    return processor.tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
