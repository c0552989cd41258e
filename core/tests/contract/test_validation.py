"""What is wrong with a config, as one sentence."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, model_validator

from eagleray.contract.errors import ConfigError
from eagleray.contract.validation import validate


class Pair(BaseModel):
    model_config = ConfigDict(extra="forbid")
    mean: float | None = None
    std: float | None = None

    @model_validator(mode="after")
    def _both(self) -> Pair:
        if (self.mean is None) != (self.std is None):
            raise ValueError("Give 'mean' and 'std' together.")
        return self


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"mean": 0.5}, "advanced_config: give 'mean' and 'std' together."),
        ({"std": "wide"}, "advanced_config: 'std' = 'wide': input should be a valid number"),
        ({"sdt": 1}, "advanced_config: unknown key 'sdt'; did you mean 'std'?"),
    ],
    ids=["several keys", "one", "unknown"],
)
def test_what_is_wrong_is_one_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Pair, values, what="advanced_config")
    assert str(caught.value).startswith(sentence)
    assert not str(caught.value).endswith("..")
