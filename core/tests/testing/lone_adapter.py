"""An adapter that tells where it is, speaks in every way, and gives NumPy's numbers and an error of its own."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from eagleray.testing.echo_adapter import EchoAdapter

PLACE = os.environ.get("LONE_PLACE", "unset")


class StrangeError(RuntimeError):
    """What only a process with this module could read, and none could be sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class LoneAdapter(EchoAdapter):
    def load_data(self) -> None:
        print(f"step load_data in {Path.cwd()}")
        print(f"imported with {PLACE}")
        os.write(1, b"a native line\n")
        os.write(2, b"a native line of stderr\n")
        subprocess.run(["echo", "a child's line"], check=True)
        super().load_data()

    def load_model(self) -> None:
        print("step load_model")
        super().load_model()

    def train(self) -> None:
        print("step train")
        super().train()
        stripped = self.context.work_dir / "stripped.npz"
        stripped.write_bytes(b"stripped")
        self.context.publish_best(stripped)

    def validate(self) -> Mapping[str, float]:
        print("step validate")
        return {name: np.float32(value) for name, value in super().validate().items()}  # type: ignore[misc]

    def _fault(self, epoch: int) -> None:
        if epoch == self.config.fail_at_epoch:
            raise StrangeError("of its own kind")
