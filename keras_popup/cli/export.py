"""The command `export`."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from keras_popup.cli.flags import UsageError, parse
from keras_popup.cli.models import check_new, find_model_file, load_model
from keras_popup.cli.quiet import import_quietly, say
from keras_popup.training import RunConfig

_EXPORT_HELP = """\
keras-popup export: write a model for TensorFlow Serving, LiteRT or ONNX Runtime

usage:
  keras-popup export MODEL [flags]     MODEL is the folder of a run or search, a .keras file or a ticket

The masks are multiplied into the kernels. Each file is read back by its runtime, and its outputs are compared with
the model's: on images of the run's test set if MODEL is a run folder. A file with other outputs is removed. Install
the runtimes with pip install 'keras-popup[export]'.

examples:
  keras-popup export runs/first                             writes runs/first/saved_model
  keras-popup export runs/first --format litert_int8,onnx   writes runs/first/model_int8.tflite and model.onnx
  keras-popup export model.keras --format litert --out phone.tflite
  keras-popup export model.keras --remove_dead              without channels that change nothing
"""


# The names of the files that `export` writes beside a model.
EXPORT_NAMES = {
    "tf_saved_model": "saved_model",
    "litert": "model.tflite",
    "litert_sparse": "model_sparse.tflite",
    "litert_int8": "model_int8.tflite",
    "onnx": "model.onnx",
}


_COMPARED = 32  # test images


def export(arguments: Sequence[str]) -> int:
    """`keras-popup export`: exports a model and returns the exit status."""
    values = flags.FlagValues()
    names = ", ".join(EXPORT_NAMES)
    flags.DEFINE_list(
        "format",
        None,
        f"The formats to write: one or more of {names}, or all. The default follows from the ending of --out; without "
        "--out, it is tf_saved_model.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "out", None, "The file or folder, for one format. The default is beside the model.", flag_values=values
    )
    flags.DEFINE_float(
        "tolerance",
        None,
        "The largest difference of outputs to accept, in units of the largest output. The default is 1e-4, and 0.1 for "
        "int8 kernels that had to be rounded.",
        lower_bound=0.0,
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "remove_dead",
        False,
        "Leave out channels that change nothing. The files are smaller and quicker, the outputs equal up to rounding.",
        flag_values=values,
    )
    flags.DEFINE_boolean("overwrite", False, "Replace files that exist.", flag_values=values)
    if (given := parse(values, "export", arguments, _EXPORT_HELP, "MODEL")) is None:
        return 0
    (path,) = given
    # Without a format, `export` goes by the ending of --out.
    formats = list(EXPORT_NAMES) if values.format == ["all"] else list(dict.fromkeys(values.format or [None]))
    if unknown := [name for name in formats if name and name not in EXPORT_NAMES]:
        raise UsageError(f"--format must be one or more of {names}, or all. Received: {', '.join(unknown)}.")
    if values.out and len(formats) > 1:
        raise UsageError(
            f"--out is for one format. Received: {', '.join(formats)}. Leave it out to write beside the model."
        )
    file = find_model_file(path)
    if not os.path.exists(path) and not values.out:
        raise UsageError(f"--out is required for '{path}', a network inside the package, with one --format at a time.")
    outs = [
        values.out or os.path.join(os.path.dirname(file), EXPORT_NAMES[name or "tf_saved_model"]) for name in formats
    ]
    for out in outs:
        check_new(out, values.overwrite)
    with import_quietly():
        from keras_popup import exports
    model = load_model(file, masked=False)
    inputs = _test_images(path) if os.path.isdir(path) else None
    source = "random numbers" if inputs is None else f"{len(inputs)} images of the run's test set"
    print(f"compared on {source}:")
    failed = False
    for name, out in zip(formats, outs, strict=True):
        say(f"Writing '{out}' and reading it back.")
        try:
            result = exports.export(
                model, out, name, inputs=inputs, tolerance=values.tolerance, remove_dead=values.remove_dead
            )
        except (exports.ExportError, ImportError, OSError) as error:
            print(f"keras-popup: {error}", file=sys.stderr)
            failed = True
            continue
        difference = f"{result.difference:.1e} (accepted: {result.tolerance:g})"
        print(f"{result.format:14} {result.bytes:>12,} bytes   largest difference {difference}   {result.path}")
    if not failed:
        say("next: how to run each of these files is in docs/deploy.md")
    return int(failed)


def _test_images(folder: str) -> Any:
    """Returns some test images of a run; None if its data cannot be read."""
    from keras_popup.records import RunFolder
    from keras_popup.training import load_data

    if not (run := RunFolder(folder)).is_one():
        return None
    config = RunConfig.from_json(run.config())
    say(f"Reading images of {config.dataset}.")
    try:
        images, _ = next(iter(load_data(config).evaluation_batches("test", _COMPARED)))
    except (OSError, ValueError, ImportError) as error:
        print(
            f"keras-popup: the run's images cannot be read; random numbers are used instead. ({error})", file=sys.stderr
        )
        return None
    return images.numpy()
