"""Whether a predictor's answers have the form that `eagleray.contract.predictor` names for the task."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from eagleray.contract import tasks

KEYS = {
    tasks.IMAGE_CLASSIFICATION: {"label", "class_id", "score"},
    tasks.OBJECT_DETECTION: {"label", "class_id", "score", "box"},
    tasks.ZERO_SHOT_OBJECT_DETECTION: {"label", "class_id", "score", "box"},
    tasks.IMAGE_SEGMENTATION: {"label", "class_id", "score", "box", "mask"},
    tasks.MASK_GENERATION: {"label", "class_id", "score", "box", "mask"},
    tasks.KEYPOINT_DETECTION: {"label", "class_id", "score", "box", "keypoints"},
    tasks.IMAGE_TEXT_TO_TEXT: {"text"},
}


def faults_in(task: str, answers: Sequence[dict[str, Any]], classes: Sequence[str], size: tuple[int, int]) -> list[str]:
    """Every way in which `answers` for a picture of `size` (width, height) miss the task's form, as clauses."""
    found = []
    try:
        json.dumps(answers, allow_nan=False)
    except (TypeError, ValueError) as error:
        found.append(f"they are not plain data: {error}")
    for number, answer in enumerate(answers):
        if missing := KEYS[task] - answer.keys():
            found.append(f"answer {number} lacks {', '.join(sorted(missing))}")
        else:
            found += [f"answer {number}: {fault}" for fault in _faults(task, answer, classes, size)]
    if task == tasks.IMAGE_CLASSIFICATION and len(answers) != len(classes):
        found.append(f"{len(answers)} answers for {len(classes)} classes")
    if task == tasks.IMAGE_TEXT_TO_TEXT and len(answers) != 1:
        found.append(f"{len(answers)} texts for one prompt")
    scores = [answer.get("score", 0.0) for answer in answers]
    if scores != sorted(scores, reverse=True):
        found.append("the best does not come first")
    return found


def _faults(task: str, answer: dict[str, Any], classes: Sequence[str], size: tuple[int, int]) -> Iterator[str]:
    if task == tasks.IMAGE_TEXT_TO_TEXT:
        if not isinstance(answer["text"], str):
            yield "its text is not a string"
        return
    if not 0 <= answer["score"] <= 1:
        yield f"its score is {answer['score']}"
    if task not in (tasks.ZERO_SHOT_OBJECT_DETECTION, tasks.MASK_GENERATION) and (
        not 0 <= answer["class_id"] < len(classes) or answer["label"] != classes[answer["class_id"]]
    ):
        yield f"class {answer['class_id']} is not '{answer['label']}'"
    if "box" in answer:
        x1, y1, x2, y2 = answer["box"]
        if not (0 <= x1 <= x2 <= size[0] and 0 <= y1 <= y2 <= size[1]):
            yield f"its box {answer['box']} is not inside the picture of {size[0]} × {size[1]}"
    if "mask" in answer:
        mask = answer["mask"]
        if mask["size"] != [size[1], size[0]] or sum(mask["counts"]) != size[0] * size[1]:
            yield f"its mask of {mask['size']} is not the picture's"
    if any(len(point) != 3 for point in answer.get("keypoints", ())):
        yield "a keypoint is not [x, y, score]"
