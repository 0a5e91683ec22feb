"""What takes long to make and all test processes look at."""

import os
import shutil

import filelock


def make_once(tmp_path_factory, name, make):
    """Returns a folder of this process, a copy of that which `make(folder)` filled in whichever process came first."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # of all workers
    made, done = root / name, root / f"{name}.done"
    with filelock.FileLock(root / f"{name}.lock"):
        if not done.exists():
            make(made)
            done.touch()
    return shutil.copytree(made, tmp_path_factory.mktemp(name) / "own")
