"""One HTML page about a run, made from its records. Needs Jinja2; loads no TensorFlow."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_popup import __version__, pages
from keras_popup._files import write_atomically
from keras_popup.records import History, LayerRecord, MaskRecord, RunFolder
from keras_popup.training import figures
from keras_popup.training.command import format_command
from keras_popup.training.config import RunConfig
from keras_popup.training.times import format_times


def write_report(path: str | os.PathLike[str]) -> Path:
    """Writes report.html into the folder of a run, finished or not.

    Args:
        path: path of the run folder.

    Returns:
        The path of the page. It needs no network and no other file.

    Raises:
        ImportError: if Jinja2 is not installed.
        ValueError: if it is not the folder of a run, if its files are damaged, or if no epoch is finished.
    """
    folder = RunFolder(path)
    if not folder.is_one():
        raise ValueError(f"RUN must be the folder of a run, with a config.json. Received: '{folder.path}'.")
    if not (folder.path / "history.csv").exists():
        raise ValueError(f"No epoch is finished yet in '{folder.path}'. Wait for the first one.")
    page = pages.render("run.html", **_collect(folder))
    write_atomically(folder.report, lambda unfinished: unfinished.write_text(page, encoding="utf-8"))
    return folder.report


def _collect(folder: RunFolder) -> dict[str, Any]:
    """Returns what the page shows."""
    arguments, summary, history, masks = folder.config(), folder.summary(), folder.history(), folder.masks()
    config = RunConfig.from_json(arguments)
    layers = [LayerRecord.from_json(each) for each in summary["layers"]] if summary else []
    kernels = masks.kernels if masks else ()
    over_epochs = figures.over_epochs(history)
    hint = ""
    if layers and masks and not over_epochs:
        hint = "How the masks changed was not recorded: keras-popup train --mask_statistics history does."
    left_out = masks.total - len(kernels) if masks else 0
    versions = summary["versions"] if summary else folder.versions()
    return {
        "title": config.title(),
        "version": __version__,
        "state": _describe_state(arguments, summary, history),
        "tiles": _make_tiles(folder, summary, history, kernels),
        "curves": figures.learning_curves(history),
        "over_epochs": over_epochs,
        "shares": figures.kept_shares(layers),
        "masks": describe_maps(kernels),
        "masks_note": f" The first {len(kernels)} of {masks.total} kernels." if masks and left_out else "",
        "hint": hint,
        "scores": figures.scores(kernels),
        "table": _make_table(layers),
        "code": _make_code(folder, summary),
        "command": format_command(arguments, folder.path.name),
        "circumstances": _describe_circumstances(folder, summary, versions),
        "versions": list_versions(versions),
        "arguments": [(name, str(value)) for name, value in arguments.items() if value is not None],
    }


def _describe_state(arguments: Mapping[str, Any], summary: Mapping[str, Any] | None, history: History) -> str:
    last = f"{len(history)} epochs" if len(history) != 1 else "1 epoch"
    if summary is None:
        return f"This run is not finished: {last} of {arguments['epochs']}."
    return f"{last}, seed {arguments['seed']}, on {summary['data']['train']:,} training images."


def _make_tiles(
    folder: RunFolder, summary: Mapping[str, Any] | None, history: History, masks: Sequence[MaskRecord]
) -> list[dict[str, str]]:
    tiles = []
    last = history[-1]
    if summary and summary["test"]:
        tiles.append(describe_accuracy("Test accuracy", summary["test"]["accuracy"], summary["data"]["test"]))
    if summary and summary["validation"]:
        found = summary["validation"]["accuracy"]
        tiles.append(describe_accuracy("Validation accuracy", found, summary["data"]["validation"]))
    elif "val_accuracy" in last:
        tiles.append({"title": "Validation accuracy", "value": f"{last['val_accuracy']:.2%}", "text": "so far"})
    tiles.append({"title": "Training accuracy", "value": f"{last['accuracy']:.2%}", "text": f"loss {last['loss']:.3g}"})
    if not summary:
        return tiles
    share = summary["kept"] / summary["weights"] if summary["weights"] else 1.0
    kept = {"title": "Weights kept", "value": f"{share:.1%}", "text": f"{summary['kept']:,} of {summary['weights']:,}"}
    if any("seed" in layer for layer in summary["layers"]):
        tiles.append(kept)
    if folder.ticket.exists():
        text = "seeds and masks, ready to ship"
        tiles.append({"title": "Ticket", "value": pages.format_bytes(folder.ticket.stat().st_size), "text": text})
    elif masks and all(layer.get("k") is not None or layer.get("seed") is None for layer in summary["layers"]):
        bits = sum(_count_bits(layer["weights"], layer["kept"]) for layer in summary["layers"] if "seed" in layer)
        size = f"≈ {pages.format_bytes(bits / 8)}"
        tiles.append({"title": "Ticket", "value": size, "text": "the masks; some kB go with them"})
    speed = f"{summary['images_per_second']:,.0f} images a second"
    tiles.append({"title": "Training time", "value": pages.format_duration(summary["seconds"]), "text": speed})
    return tiles


def _count_bits(weights: int, kept: int) -> float:
    """Returns log2 of the number of masks that keep so many weights."""
    ways = math.lgamma(weights + 1) - math.lgamma(kept + 1) - math.lgamma(weights - kept + 1)
    return ways / math.log(2)


def describe_accuracy(title: str, accuracy: float, images: int) -> dict[str, str]:
    """Returns the tile of an accuracy, with its standard error."""
    error = pages.standard_error(accuracy, images)
    text = f"± {error:.2%}, the standard error of {images:,} images" if images else ""
    return {"title": title, "value": f"{accuracy:.2%}", "text": text}


def describe_maps(masks: Sequence[MaskRecord]) -> list[dict[str, str]]:
    """Returns the maps of masks as a page shows them."""
    return [
        {
            "image": pages.draw_map(mask.cells(), mask.rows, mask.columns),
            "title": mask.path,
            "text": f"{mask.kept:,} of {mask.weights:,} kept, {mask.kept / mask.weights:.1%}",
        }
        for mask in masks
    ]


def list_versions(versions: Mapping[str, str]) -> list[tuple[str, str]]:
    """Returns the versions among what a folder has recorded of its libraries and machine."""
    machine = ("platform", "devices", "cpus", "processor")
    return [(name, version) for name, version in versions.items() if name not in machine]


def _make_table(layers: Sequence[LayerRecord]) -> pages.Table | None:
    if not layers:
        return None
    columns = [
        pages.Column("layer", "layer", number=False),
        pages.Column("weights", "weights"),
        pages.Column("kept", "kept"),
        pages.Column("share", "share"),
        pages.Column("seed", "seed of its kernel"),
    ]
    rows: list[dict[str, tuple[str, Any]]] = []
    for layer in layers:
        share = layer.kept / layer.weights
        rows.append(
            {
                "layer": (layer.name, layer.name),
                "weights": (f"{layer.weights:,}", layer.weights),
                "kept": (f"{layer.kept:,}", layer.kept),
                "share": (f"{share:.1%}", share),
                "seed": ("", "") if layer.seed is None else (str(layer.seed), layer.seed),
            }
        )
    return pages.Table(columns, rows)


def _make_code(folder: RunFolder, summary: Mapping[str, Any] | None) -> str:
    name = folder.path.name
    if summary is None:
        return "keras-popup watch RUN        # until it is finished; RUN is the folder of this page"
    return (
        f'import keras\nimport keras_popup\n\nmodel = keras.models.load_model("{name}/model.keras")\n\n'
        f"# or, in a shell:\n"
        f"keras-popup evaluate {name}      # the accuracy of each class\n"
        f"keras-popup predict {name} IMAGE...\n"
        f"keras-popup ticket pack {name}   # the network as a file of about one bit per weight"
    )


def _describe_circumstances(
    folder: RunFolder, summary: Mapping[str, Any] | None, versions: Mapping[str, str]
) -> list[tuple[str, str]]:
    rows = [("finished" if summary else "last epoch", pages.format_time(folder.find_time()))]
    if summary and summary.get("times"):
        rows.append(("time", format_times(summary["times"])))
    machine = pages.describe_machine(versions)
    return [*rows, ("machine", machine)] if machine else rows
