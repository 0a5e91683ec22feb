"""The command `search`."""

import contextlib
import dataclasses
import os
import re
import sys
import typing
from collections.abc import Sequence
from typing import Any

from absl import flags

from keras_popup.cli.flags import UsageError, define_config_flags, flag_name, parse, plain_type
from keras_popup.cli.layer_k import parse_layer_k
from keras_popup.cli.models import check_base, check_data_dir
from keras_popup.cli.quiet import import_quietly
from keras_popup.cli.signals import name_of, status_of
from keras_popup.records import BaselineRecord, BestRecord, RunFolder, SearchFolder
from keras_popup.search import SEARCHED, ChildProcess, Range, SearchConfig, layer_k_name, parse_values
from keras_popup.training import RunConfig

_SEARCH_HELP = """\
keras-popup search: search over k, width and more, or for the best network of a given size

Each trial is a training run. Keras Tuner chooses the next trial by the validation accuracies so far. With --budget,
the search finds the best network with a ticket of at most that size: k then follows from the width.

Write several values as 0.5,1,2, a range as 0.1:0.9, a range in steps as 0.1:0.9:0.2, and a logarithmic range as
0.001:1:log. This works for k, width, learning_rate, l2, kernel_initializer, selector and the fractions of layer_k.

examples:
  keras-popup search --model conv2 --dataset digits --k 0.1:0.9 --width 0.1,0.2 --epochs 10 --max_trials 8 \\
      --out runs/search
  keras-popup search --model conv4 --dataset cifar10 --k 0.1:0.9 --width 0.5,1,2 --max_trials 30 --epochs 20 \\
      --seed 1 --out runs/s
  keras-popup search ... --out runs/s --resume              continues a search that was interrupted
  keras-popup search ... --width 0.5:4:log --budget 100kB   the best network with a ticket of 100,000 bytes or less
  keras-popup search --base runs/b --new_head --dataset birds --data_dir birds --k 0.1:0.9 --out runs/t
                                                            masks over a trained network, for another task
  keras-popup search ... --workers 4                        four trials at a time
  keras-popup search ... --ray_address auto --gpus_per_worker 2   on a cluster, two GPUs a trial

the search folder:
  trials.csv, trials.jsonl   a line per trial, written as it ends
  best.keras, best.ticket    the winner, chosen by validation images; best.json is its record
  report.html                a page about the search
"""

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def search(arguments: Sequence[str]) -> int:
    """`keras-popup search`: searches, prints the best trial and where its ticket is, returns the exit status."""
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "The search folder. Required.", flag_values=values)
    define_config_flags(values, SearchConfig, texts=("budget",))
    more: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_boolean("resume", False, "Continue the search in --out.", **more)
    flags.DEFINE_boolean("overwrite", False, "Remove the search in --out first.", **more)
    flags.DEFINE_boolean("refit", False, "Train the winner again on all training images, then test it, once.", **more)
    text = "How many trials run at once. The default is one. More need Ray: pip install 'keras-popup[cluster]'."
    flags.DEFINE_integer("workers", None, text, upper_bound=10_000, **more)
    text = "Address of a Ray cluster, such as auto or 10.0.0.1:6379. All its machines must see --out at the same path."
    flags.DEFINE_string("ray_address", None, text, **more)
    text = "GPUs of each trial on Ray. With two or more, it is trained by MirroredStrategy."
    flags.DEFINE_float("gpus_per_worker", None, text, upper_bound=1000.0, **more)
    flags.DEFINE_boolean("tensorboard", False, "Write logs for TensorBoard, with hyperparameters.", **more)
    text = "After this many minutes without progress, the process of a trial counts as hung."
    flags.DEFINE_float("stall_minutes", 30.0, text, upper_bound=1e6, **more)
    define_config_flags(values, RunConfig, texts=SEARCHED)
    if parse(values, "search", arguments, _SEARCH_HELP) is None:
        return 0
    if not values.out:
        raise UsageError("--out is required: the folder of the search, such as --out runs/search.")
    try:
        config = _config(values)
    except ValueError as error:
        raise UsageError(str(error)) from None
    check_data_dir(config.run.data_dir)
    names = ("resume", "overwrite", "refit", "workers", "ray_address", "gpus_per_worker", "tensorboard")
    options = {name: values[name].value for name in (*names, "stall_minutes")}
    try:
        # Both processes need TensorFlow, which takes seconds: they load it at the same time.
        with contextlib.closing(ChildProcess()) as child:
            child.begin()
            with import_quietly():
                from keras_popup.search import search as run_search
            best = run_search(config, values.out, **options, child=child)
    except KeyboardInterrupt as stop:
        said = (
            f"{name_of(stop)}. The same command with --resume goes on: trials that have ended are kept, and a trial "
            "that was running goes on after its last epoch."
        )
        print(f"\nkeras-popup: {said}", file=sys.stderr)
        return status_of(stop)
    _print_best(best, values.out)
    return 0


def _config(values: flags.FlagValues) -> SearchConfig:
    of_layers = parse_layer_k(values.layer_k, parse_values)
    space: dict[str, Any] = {layer_k_name(pattern): each for pattern, each in of_layers.items()}
    fixed: dict[str, Any] = {}
    hints = typing.get_type_hints(RunConfig)
    for field in dataclasses.fields(RunConfig):
        value = values[flag_name(field)].value
        if field.name not in SEARCHED:
            fixed[field.name] = value
        elif value is not None:
            try:
                each = parse_values(value, plain_type(hints[field.name]))
            except ValueError as error:
                raise ValueError(f"`{field.name}`: {error}") from None
            (space if isinstance(each, (tuple, Range)) else fixed)[field.name] = each
    fixed |= check_base(fixed["base"], values["model"].present)
    budget = None if values.budget is None else _bytes(values.budget)
    if budget is not None and "k" in fixed:
        raise ValueError("With a budget, k follows from the width. Give a range of k as limits, or leave --k out.")
    names = ("tuner", "max_trials", "executions", "baseline", "retries")
    own = {name: values[name].value for name in names}
    return SearchConfig(run=RunConfig(**fixed), space=space, budget=budget, **own)


def _bytes(text: str) -> int:
    found = re.fullmatch(r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", text)
    if not found or found[2].lower() not in _UNITS:
        raise ValueError(f"`budget` must be bytes, such as 100kB, 1.5MB or 102400. Received: {text!r}.")
    return int(float(re.sub("[_,]", "", found[1])) * _UNITS[found[2].lower()])


def _print_best(best: BestRecord, out: str) -> None:
    from keras_popup.search import format_trial

    execution = best.best_execution
    print(f"\nbest trial     {best.trial}: {format_trial(best)}")
    score = best.score or 0.0  # the best trial has one
    summary = RunFolder(os.path.join(out, best.folder, str(best.execution))).summary()
    images = summary["data"]["validation"] if summary else 0
    error = f" ± {(score * (1 - score) / images) ** 0.5:.2%}, the standard error of {images:,} images" if images else ""
    print(f"validation     {score:.2%}{error}")
    if len(best.executions) > 1:
        print(f"               the mean of {len(best.executions)} runs; below, the best of them")
    for baseline in SearchFolder(out).records(BaselineRecord):
        if baseline.score is not None and baseline.width == execution.width:
            print(f"learned weights {baseline.score:.2%} with the same network, by validation")
    if best.test:
        print(f"test accuracy  {best.test['accuracy']:.2%}, trained again on all training images")
    else:
        print("test accuracy  not measured yet, see below")
    print(f"weights kept   {execution.kept:,} of {execution.weights:,}")
    ticket = os.path.join(out, "best.ticket")
    if os.path.exists(ticket):
        print(f"ticket         {ticket} ({os.path.getsize(ticket):,} bytes)")
    print(f"model          {os.path.join(out, 'best.keras')}")
    page = os.path.join(out, "report.html")
    if os.path.exists(page):
        print(f"report         {page}")
    print("\nnext:")
    if not best.test:
        print("  the same command with --resume --refit   trains the winner on all training images and tests it")
    print(f"  keras-popup evaluate {out}   the accuracy on the test images, of each class")
    print(f"  keras-popup predict {out} IMAGE...")
    if os.path.exists(ticket):
        print(f"  keras_popup.load_ticket({ticket!r})   in Python: a plain Keras model")
