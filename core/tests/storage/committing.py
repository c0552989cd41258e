"""Commits checkpoints of the epochs 1 to LAST, and dies in the last: `committing.py LOCATION PREFIX FOLDER LAST POINT`.

POINT is the failpoint of its death; FOLDER is for what is saved before it is committed.
"""

import os
import sys
from pathlib import Path

from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.opening import open_store

location, prefix, folder, last, point = sys.argv[1:]
checkpoints = Checkpoints(open_store(location), prefix)
save = Path(folder) / "save"
save.mkdir()
for epoch in range(1, int(last) + 1):
    for name in ("model.pt", "optimizer.bin"):
        (save / name).write_text(f"{name} {epoch}" * 1000)
    if epoch == int(last):
        os.environ["EAGLERAY_FAILPOINTS"] = f"{point}:kill"
    checkpoints.commit(
        save,
        job_id=7,
        attempt=1,
        epoch=epoch,
        metrics={},
        portable_file="model.pt",
        is_best=True,
        best_value=0.5,
        best_epoch=epoch,
    )
