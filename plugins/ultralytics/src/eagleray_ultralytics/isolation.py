"""Keeps Ultralytics to the job's own folder and off the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import get_data_path
from ultralytics.utils import SETTINGS, USER_CONFIG_DIR, downloads

FONTS = ("Arial.ttf", "Arial.Unicode.ttf")


def isolate(work_dir: Path) -> None:
    """Point every folder of Ultralytics' settings into `work_dir`, switch its integrations off, give it a font.

    Without a font in its configuration folder it asks a server for one, also when told that it is offline.
    """
    SETTINGS.update(
        sync=False,
        clearml=False,
        comet=False,
        dvc=False,
        mlflow=False,
        raytune=False,
        tensorboard=False,
        wandb=False,
        vscode_msg=False,
        datasets_dir=str(work_dir / "datasets"),
        weights_dir=str(work_dir / "weights"),
        runs_dir=str(work_dir / "runs"),
    )
    shipped = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for name in FONTS:
        font = Path(USER_CONFIG_DIR) / name
        if not font.exists():
            font.symlink_to(shipped)


@contextmanager
def no_downloads() -> Iterator[None]:
    """While inside, a download fails at once with ConnectionError.

    The mixed-precision check on a GPU asks for weights of its own; Ultralytics takes a failed download there as
    "cannot be checked" and goes on with mixed precision, except on the GPUs that it knows to be faulty.
    """

    def refuse(url: Any, *args: Any, **kwargs: Any) -> Path:
        if Path(str(url)).is_file():
            return original(url, *args, **kwargs)
        raise ConnectionError(f"No download during training: {url}")

    original = downloads.safe_download
    downloads.safe_download = refuse
    try:
        yield
    finally:
        downloads.safe_download = original
