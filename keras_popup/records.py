"""What a run folder holds, written so that a kill at any moment leaves it readable.

config.json       the full configuration, with the protocol's values, and library versions
history.csv       one row per epoch
checkpoint.json   the last finished epoch, the history up to it and the seconds spent
checkpoint-*.weights.h5   weights and optimizer of that epoch
model.keras       the model after the last epoch
summary.json      final metrics, kept and total counts, time; written last, so it marks a finished run
curves.png        the learning curves
"""

import contextlib
import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

History = list[dict[str, float]]

_UNFINISHED = ".unfinished-"
# config.json last: while it is there, the folder is known to be a run's.
_FILES = (
    f"{_UNFINISHED}*",
    "history.csv",
    "checkpoint.json",
    "checkpoint-*.weights.h5",
    "model.keras",
    "summary.json",
    "curves.png",
    "config.json",
)


class RunFolder:
    """The folder of one training run.

    Args:
        path: of the folder, which need not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.curves = self.path / "curves.png"
        self.model = self.path / "model.keras"

    def check(self, config: dict[str, Any], *, resume: bool, overwrite: bool, but: Sequence[str] = ()) -> None:
        """Checks that a run with this configuration may use the folder. Changes nothing.

        Args:
            config: the run's arguments.
            resume: whether to go on with the run in it.
            overwrite: whether to start anew.
            but: the arguments that may differ from those recorded.

        Raises:
            FileExistsError: if there is something in it, and neither `resume` nor `overwrite`.
            ValueError: for both, a folder that is not a run's or cannot be made, damaged records, or `resume`
                with another configuration.
        """
        if resume and overwrite:
            raise ValueError("Use --resume to go on with a run or --overwrite to start it anew, not both.")
        if not self.path.exists():
            parent = next(parent for parent in self.path.absolute().parents if parent.exists())
            if not parent.is_dir() or not os.access(parent, os.W_OK):
                raise ValueError(f"Cannot make the run folder '{self.path}': '{parent}' is no writable directory.")
            return
        if self.path.is_dir() and all(file.name.startswith(_UNFINISHED) for file in self.path.iterdir()):
            return
        if not self._is_run():
            raise ValueError(
                f"'{self.path}' exists and is not the folder of a run: it has no config.json of a run. Nothing was "
                "changed. Name another folder, or move this one away."
            )
        if overwrite:
            return
        if not resume:
            raise FileExistsError(
                f"The run folder '{self.path}' exists. Use --resume to go on with it, --overwrite to start it "
                "anew, or name another folder."
            )
        recorded = self.read("config.json")["config"]
        names = [name for name in {**recorded, **config} if name not in but]
        differing = [name for name in names if recorded.get(name) != config.get(name)]
        if differing:
            raise ValueError(
                f"--resume needs the configuration that '{self.path}' was started with. Differing: "
                + "; ".join(f"{name}={config.get(name)!r}, recorded {recorded.get(name)!r}" for name in differing)
                + ". Use the recorded values, or another folder."
            )

    def _is_run(self) -> bool:
        try:
            self.read("config.json", "config", "versions")
        except (OSError, ValueError):
            return False
        return True

    def start(self, config: dict[str, Any], versions: dict[str, str], *, overwrite: bool) -> None:
        """Makes the folder with its config.json. With `overwrite` the files of an old run go, and no others."""
        if overwrite and self.path.exists():
            self._remove(_FILES)
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "config.json").exists():
            self.write("config.json", {"config": config, "versions": versions})

    def _remove(self, patterns: tuple[str, ...], but: Path | None = None) -> None:
        for pattern in patterns:
            for path in self.path.glob(pattern):
                if path != but:
                    path.unlink()

    def summary(self) -> dict[str, Any] | None:
        """Returns the summary of a finished run, None before the end."""
        return self.read("summary.json", "test") if (self.path / "summary.json").exists() else None

    def read(self, name: str, *keys: str) -> dict[str, Any]:
        """Returns a JSON file of the folder, which must hold an object with these keys.

        Raises:
            ValueError: naming the file, if it does not.
        """
        path = self.path / name
        try:
            content = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"'{path}' is damaged: {error}. Start the run again with --overwrite.") from None
        if not isinstance(content, dict) or not set(keys) <= content.keys():
            raise ValueError(f"'{path}' is damaged: expected {list(keys)} in it. Start the run again with --overwrite.")
        return content

    def write(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(self.path / name, lambda path: path.write_text(text))

    def write_history(self, history: History) -> None:
        """Writes history.csv: `epoch` counted from 1, then the learning rate and metrics."""
        table = io.StringIO()
        writer = csv.DictWriter(table, list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_atomically(self.path / "history.csv", lambda path: path.write_text(table.getvalue()))

    def save_checkpoint(self, model: Any, history: History, seconds: float) -> None:
        """Saves a model with its optimizer after `len(history)` epochs, and then forgets the one before."""
        weights = self._weights(len(history))
        write_atomically(weights, model.save_weights)
        self.write("checkpoint.json", {"epoch": len(history), "seconds": seconds, "history": history})
        self._remove(("checkpoint-*.weights.h5",), but=weights)
        self.write_history(history)

    def load_checkpoint(self, model: Any) -> tuple[History, float]:
        """Restores a compiled model and its optimizer, both built. Returns the history and seconds so far."""
        if not (self.path / "checkpoint.json").exists():
            return [], 0.0
        state = self.read("checkpoint.json", "epoch", "seconds", "history")
        weights = self._weights(state["epoch"])
        try:
            model.load_weights(weights)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"The checkpoint '{weights}' is missing or damaged. Start the run again with --overwrite. ({error})"
            ) from None
        self.write_history(state["history"])
        return state["history"], state["seconds"]

    def finish(self, summary: dict[str, Any]) -> None:
        """Writes the summary and removes the checkpoint, which model.keras replaces."""
        self.write("summary.json", summary)
        self._remove(("checkpoint.json", "checkpoint-*.weights.h5"))

    def _weights(self, epoch: int) -> Path:
        return self.path / f"checkpoint-{epoch:04d}.weights.h5"


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` make a file beside `path`, and renames it to `path` once it is whole."""
    temporary = path.with_name(_UNFINISHED + path.name)
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
