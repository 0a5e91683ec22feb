"""The command line. Thin: flags are made from `RunConfig`, work is done by other modules."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from keras_popup import __version__
from keras_popup._flags import UsageError, define_config_flags, parse
from keras_popup._loading import load
from keras_popup._search_commands import report, search
from keras_popup.training import RunConfig

DIVERGED = 3  # exit status

_USAGE = """\
keras-popup: find subnetworks of randomly weighted networks

usage:
  keras-popup train [flags]     train a network and leave a run folder
  keras-popup search [flags]    search over k, width and more, or for what fits into some bytes
  keras-popup report SEARCH     one HTML page about a search
  keras-popup summary MODEL     what is masked in a model, and how large its masks are
  keras-popup export MODEL      write a model for TensorFlow Serving, LiteRT or ONNX Runtime
  keras-popup ticket pack MODEL write a model as its seeds and masks, about one bit per weight
  keras-popup ticket unpack|info|verify TICKET
  keras-popup COMMAND --help    all flags of a command
  keras-popup --version

MODEL is a run folder or a .keras file.

a first try, in under a minute:
  keras-popup train --model conv2 --dataset digits --epochs 20 --out runs/first
"""

_TRAIN_HELP = """\
keras-popup train: train a network and leave a run folder

Finds the fraction k of a random network's weights that does best, by edge-popup (arXiv 1911.13299), or learns the
weights of the same network with --method dense. What is not given follows the paper's protocol for the model.

examples:
  keras-popup train --model conv2 --dataset digits --epochs 20 --out runs/digits
  keras-popup train --model conv4 --dataset cifar10 --k 0.5 --epochs 100 --seed 1 --out runs/a
  keras-popup train --model resnet18 --dataset pets --data_dir photos --image_size 64 --out runs/b
  keras-popup train ... --out runs/a --resume     goes on with a run that was interrupted
  keras-popup train ... --devices GPU:0,GPU:1     on two GPUs, with the result of one; all GPUs are the default
  keras-popup train ... --strategy multiworker    on each machine that TF_CONFIG names

the run folder:
  config.json, history.csv, curves.png, model.keras, summary.json
"""

_SUMMARY_HELP = """\
keras-popup summary: what is masked in a model, and how large its masks are

usage:
  keras-popup summary MODEL     MODEL is a run folder or a .keras file

A row per layer that has weights: how many, how many the mask keeps, the fraction k, the seed of the kernel, and
why a layer is not masked. Below, the bytes of all masks at one bit per weight and at the entropy limit.

example:
  keras-popup summary runs/first
"""

_EXPORT_HELP = """\
keras-popup export: write a model for TensorFlow Serving, LiteRT or ONNX Runtime

usage:
  keras-popup export MODEL [flags]     MODEL is a run folder or a .keras file

Masks are baked in. Each file is read back by its runtime and its outputs compared with the model's, on images of
the run's test set where MODEL is a run folder; a file that computes something else is removed. The runtimes are
installed by pip install 'keras-popup[export]'.

examples:
  keras-popup export runs/first                             writes runs/first/saved_model
  keras-popup export runs/first --format litert_int8,onnx   writes runs/first/model_int8.tflite and model.onnx
  keras-popup export model.keras --format litert --out phone.tflite
"""

_TICKET_HELP = """\
keras-popup ticket: a network as its seeds and its masks, in about one bit per weight or less

usage:
  keras-popup ticket pack MODEL [flags]       MODEL is a run folder or a .keras file
  keras-popup ticket unpack TICKET [flags]    writes the plain model, as a .keras file
  keras-popup ticket info TICKET              what takes how many bytes, and where the ticket comes from
  keras-popup ticket verify TICKET            unpacks all weights and checks them

A ticket may come from a stranger: nothing in it is run, and a damaged one is an error.
keras-popup ticket COMMAND --help prints the flags of a command.

examples:
  keras-popup ticket pack runs/first            writes runs/first/model.ticket
  keras-popup ticket unpack runs/first/model.ticket   writes runs/first/model_plain.keras
"""

# How `export` names what it writes beside a model.
_EXPORT_NAMES = {
    "saved_model": "saved_model",
    "litert": "model.tflite",
    "litert_sparse": "model_sparse.tflite",
    "litert_int8": "model_int8.tflite",
    "onnx": "model.onnx",
}

_COMPARED = 32  # test images


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        The exit status: 0, 1 for a run that failed, 2 for wrong arguments, 3 for a loss that diverged.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "--help"
    if command in ("--help", "-h", "help"):
        print(_USAGE, end="")
        return 0
    if command == "--version":
        print(f"keras-popup {__version__}")
        return 0
    commands = {
        "train": _train,
        "search": search,
        "report": report,
        "summary": _summary,
        "export": _export,
        "ticket": _ticket,
    }
    try:
        if command not in commands:
            raise UsageError(f"Unknown command {command!r}. Expected: {', '.join(commands)}. See keras-popup --help.")
        return commands[command](arguments[1:])
    except UsageError as error:
        print(f"keras-popup: {error}", file=sys.stderr)
        return 2
    except (ValueError, TypeError, OSError, ImportError, ArithmeticError, RuntimeError) as error:
        print(f"keras-popup: {error}", file=sys.stderr)
        return 1


def _train(arguments: Sequence[str]) -> int:
    values = flags.FlagValues()
    define_config_flags(values, RunConfig)
    flags.DEFINE_string("out", None, "The run folder. Required.", flag_values=values)
    flags.DEFINE_boolean("resume", False, "Go on with the run in --out, on other devices too.", flag_values=values)
    flags.DEFINE_boolean("overwrite", False, "Remove the run in --out first.", flag_values=values)
    if parse(values, "train", arguments, _TRAIN_HELP) is None:
        return 0
    if not values.out:
        raise UsageError("--out is required: the folder of the run, such as --out runs/first.")
    try:
        config = RunConfig(**{field.name: values[field.name].value for field in dataclasses.fields(RunConfig)})
        config.with_protocol()
    except ValueError as error:
        raise UsageError(str(error)) from None
    training = load("training")
    try:
        summary = training.train(config, values.out, resume=values.resume, overwrite=values.overwrite)
    except KeyboardInterrupt:
        print(
            "\nkeras-popup: interrupted. The same command with --resume goes on after the last epoch.", file=sys.stderr
        )
        return 130
    except training.DivergenceError as error:
        print(f"keras-popup: {error}", file=sys.stderr)
        return DIVERGED
    _print_summary(summary, values.out)
    return 0


def _summary(arguments: Sequence[str]) -> int:
    path = parse(flags.FlagValues(), "summary", arguments, _SUMMARY_HELP, "MODEL")
    if path is not None:
        load("summary").mask_summary(_load_model(_model_file(path)))
    return 0


def _export(arguments: Sequence[str]) -> int:
    values = flags.FlagValues()
    names = ", ".join(_EXPORT_NAMES)
    flags.DEFINE_list(
        "format",
        None,
        f"What to write: one or more of {names}, or all. By the ending of --out if that is given, else saved_model.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "out", None, "The file or folder, for one format. Beside the model if not given.", flag_values=values
    )
    flags.DEFINE_float(
        "tolerance",
        None,
        "The largest difference of outputs to accept, in units of the largest output. By default 1e-4, and 0.1 for "
        "int8 kernels that had to be rounded.",
        lower_bound=0.0,
        flag_values=values,
    )
    path = parse(values, "export", arguments, _EXPORT_HELP, "MODEL")
    if path is None:
        return 0
    # Without a format, `export` goes by the ending of --out.
    formats = list(_EXPORT_NAMES) if values.format == ["all"] else list(dict.fromkeys(values.format or [None]))
    if unknown := [name for name in formats if name and name not in _EXPORT_NAMES]:
        raise UsageError(f"--format must be one or more of {names}, or all. Received: {', '.join(unknown)}.")
    if values.out and len(formats) > 1:
        raise UsageError(
            f"--out is for one format. Received: {', '.join(formats)}. Leave it out to write beside the model."
        )
    file = _model_file(path)
    exports = load("exports")
    model = _load_model(file)
    inputs = _test_images(path) if os.path.isdir(path) else None
    source = "made-up numbers" if inputs is None else f"{len(inputs)} images of the run's test set"
    print(f"compared on {source}:")
    failed = False
    for name in formats:
        out = values.out or os.path.join(os.path.dirname(file), _EXPORT_NAMES[name or "saved_model"])
        try:
            result = exports.export(model, out, name, inputs=inputs, tolerance=values.tolerance)
        except (exports.ExportError, ImportError, OSError) as error:
            print(f"keras-popup: {error}", file=sys.stderr)
            failed = True
            continue
        difference = f"{result.difference:.1e} (accepted: {result.tolerance:g})"
        print(f"{result.format:14} {result.bytes:>12,} bytes   largest difference {difference}   {result.path}")
    return int(failed)


def _ticket(arguments: Sequence[str]) -> int:
    commands = {"pack": _pack, "unpack": _unpack, "info": _inspect, "verify": _inspect}
    command = arguments[0] if arguments else "--help"
    if command in ("--help", "-h", "help"):
        print(_TICKET_HELP, end="")
        return 0
    if command not in commands:
        raise UsageError(
            f"Unknown command 'ticket {command}'. Expected: {', '.join(commands)}. See keras-popup ticket --help."
        )
    return commands[command](command, arguments[1:])


def _pack(command: str, arguments: Sequence[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "The file. Beside the model if not given.", flag_values=values)
    flags.DEFINE_string("dataset", None, "What the model was trained on. The run's if not given.", flag_values=values)
    flags.DEFINE_string("notes", None, "Text for whoever reads the ticket.", flag_values=values)
    path = parse(values, f"ticket {command}", arguments, _TICKET_HELP, "MODEL")
    if path is None:
        return 0
    file = _model_file(path)
    out = Path(values.out or Path(file).with_suffix(".ticket"))
    dataset, metrics = values.dataset, None
    if os.path.isdir(path):
        run = load("records").RunFolder(path)
        dataset = dataset or run.read("config.json", "config")["config"].get("dataset")
        metrics = run.read("summary.json", "test")["test"]
    tickets = load("tickets")
    print(tickets.save_ticket(_load_model(file), out, dataset=dataset, metrics=metrics, notes=values.notes))
    print(f" Written: {out}")
    return 0


def _unpack(command: str, arguments: Sequence[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string(
        "out", None, "The .keras file. By default beside the ticket, such as model_plain.keras.", flag_values=values
    )
    flags.DEFINE_boolean(
        "masked", False, "Keep the masks, for further training. Their scores are new ones.", flag_values=values
    )
    flags.DEFINE_boolean("overwrite", False, "Replace the file if it exists.", flag_values=values)
    flags.DEFINE_list(
        "trust", [], "Installed packages whose layers the ticket may have, such as keras_hub.", flag_values=values
    )
    _define_max_bytes(values)
    path = parse(values, f"ticket {command}", arguments, _TICKET_HELP, "TICKET")
    if path is None:
        return 0
    kind = "masked" if values.masked else "plain"
    out = Path(values.out or Path(path).with_name(f"{Path(path).stem}_{kind}.keras"))
    if out.suffix != ".keras":
        raise UsageError(f"--out must end in .keras. Received: '{out}'.")
    if out.exists() and not values.overwrite:
        raise UsageError(f"'{out}' exists. Use --out for another file, or --overwrite.")
    load_ticket = load("tickets").load_ticket
    model = load_ticket(path, masked=values.masked, trust=values.trust, max_bytes=values.max_bytes)
    load("_files").write_atomically(out, model.save)
    print(f"{out}: {out.stat().st_size:,} bytes, from a ticket of {os.path.getsize(path):,}")
    return 0


def _inspect(command: str, arguments: Sequence[str]) -> int:
    values = flags.FlagValues()
    _define_max_bytes(values)
    path = parse(values, f"ticket {command}", arguments, _TICKET_HELP, "TICKET")
    if path is not None:
        tickets = load("tickets")
        inspect = tickets.verify_ticket if command == "verify" else tickets.ticket_info
        print(inspect(path, max_bytes=values.max_bytes))
        if command == "verify":
            print(" Verified: all masks, kernels and other weights are those that were saved")
    return 0


def _define_max_bytes(values: flags.FlagValues) -> None:
    text = "How many bytes the weights may take unpacked. Raise it for large models that you trust."
    flags.DEFINE_integer("max_bytes", 1 << 30, text, lower_bound=0, flag_values=values)


def _model_file(path: str) -> str:
    file = os.path.join(path, "model.keras") if os.path.isdir(path) else path
    if not os.path.isfile(file) or not file.endswith(".keras"):
        hint = "The run in it is not finished." if os.path.exists(os.path.join(path, "config.json")) else ""
        raise UsageError(f"MODEL must be a finished run's folder or a .keras file. Received: '{path}'. {hint}".rstrip())
    return file


def _load_model(file: str) -> Any:
    import keras

    load("layers")
    try:
        return keras.models.load_model(file)
    except Exception as error:
        raise ValueError(f"'{file}' cannot be read as a Keras model: {error}") from error


def _test_images(folder: str) -> Any:
    """Returns some test images of a run, None if its data are gone."""
    experiment, records = load("_experiment"), load("records")
    config = RunConfig(**records.RunFolder(folder).read("config.json", "config")["config"])
    try:
        images, _ = next(iter(experiment.load_data(config).evaluation_batches("test", _COMPARED)))
    except (OSError, ValueError, ImportError) as error:
        print(f"keras-popup: comparing on made-up images, as the run's cannot be read: {error}", file=sys.stderr)
        return None
    return images.numpy()


def _print_summary(summary: dict[str, Any], out: str) -> None:
    share = summary["kept"] / summary["weights"]
    if summary["test"]:
        print(f"\ntest accuracy  {summary['test']['accuracy']:.2%} ({summary['data']['test']:,} images)")
    else:  # of a search, whose trials are not tested
        print(f"\nvalidation accuracy  {summary['validation']['accuracy']:.2%}")
    print(f"weights kept   {summary['kept']:,} of {summary['weights']:,} ({share:.1%})")
    print(f"time           {summary['seconds']:.0f} s, {summary['images_per_second']:,.0f} images/s")
    if not os.path.isdir(out):
        return  # of a worker whose folder another one keeps
    print(f"run folder     {out}")
    curves = os.path.join(out, "curves.png")
    if os.path.exists(curves):
        print(f"curves         {curves}")
