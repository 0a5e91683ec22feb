"""The command `train`."""

import dataclasses
import errno
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from keras_popup.cli.flags import UsageError, define_config_flags, flag_name, parse
from keras_popup.cli.layer_k import merge_k, parse_layer_k
from keras_popup.cli.models import check_base, check_data_dir
from keras_popup.cli.quiet import import_quietly
from keras_popup.cli.signals import name_of, status_of
from keras_popup.records import RunFolder, SearchFolder
from keras_popup.training import PLACES, RunConfig, format_times, read_arguments

DIVERGED = 3  # exit status


_TRAIN_HELP = """\
keras-popup train: train a network and leave a run folder

Finds the fraction k of a random network's weights that does best, with edge-popup (arXiv 1911.13299). With
--method dense, it learns the weights of the same network. Flags that are left out follow the paper's protocol.

examples:
  keras-popup train --model conv2 --dataset digits --epochs 20 --out runs/digits
  keras-popup train --model conv4 --dataset cifar10 --k 0.5 --epochs 100 --seed 1 --out runs/a
  keras-popup train --model resnet18 --dataset pets --data_dir photos --image_size 64 --out runs/b
  keras-popup watch runs/a                        from another terminal: a line per epoch
  keras-popup train ... --out runs/a --resume     continues a run that was interrupted
  keras-popup train ... --devices GPU:0,GPU:1     on two GPUs, with the result of one; the default is all GPUs
  keras-popup train --method finetune --from runs/a --out runs/c   learns the weights that the masks of runs/a keep
  keras-popup train --base runs/b --new_head --dataset birds --data_dir birds --out runs/d
                                                  masks over the trained network of runs/b, for another task
  keras-popup train ... --strategy multiworker    on all machines that TF_CONFIG names; run it on each

the run folder:
  config.json, history.csv, curves.png, masks.json, model.keras, summary.json
  with --pictures: report.html, masks.png, scores.png, flow.png
"""


def train(arguments: Sequence[str]) -> int:
    """`keras-popup train`: trains a network and returns the exit status."""
    values = flags.FlagValues()
    define_config_flags(values, RunConfig)
    flags.DEFINE_string("out", None, "The run folder. Required.", flag_values=values)
    flags.DEFINE_boolean("resume", False, "Continue the run in --out, also on other devices.", flag_values=values)
    flags.DEFINE_boolean("overwrite", False, "Remove the run in --out first.", flag_values=values)
    text = "Draw the masks into the run folder, and write a page about the run. Needs 'keras-popup[plots]'."
    flags.DEFINE_boolean("pictures", False, text, flag_values=values)
    if parse(values, "train", arguments, _TRAIN_HELP) is None:
        return 0
    if not values.out:
        raise UsageError("--out is required: the folder of the run, such as --out runs/first.")
    try:
        given = {field.name: values[flag_name(field)].value for field in dataclasses.fields(RunConfig)}
        if (given["from_run"] is None) == (given["method"] == "finetune"):
            raise UsageError("--method finetune and --from go together: the folder of the run or search to begin with.")
        if given["from_run"] is not None:
            given |= _arguments_of(given["from_run"], values)
        given |= check_base(given["base"], values["model"].present)
        config = RunConfig(**{**given, "k": merge_k(values.k, parse_layer_k(values.layer_k))})
        resolved = config.with_protocol()
    except ValueError as error:
        raise UsageError(str(error)) from None
    check_data_dir(config.data_dir)
    if "TF_CONFIG" not in os.environ:  # of several workers, the first one checks
        options = {"resume": values.resume, "overwrite": values.overwrite}
        RunFolder(values.out).check(resolved.to_json(), **options, but=PLACES, read=read_arguments)
    started = time.perf_counter()
    with import_quietly():
        from keras_popup import training
    loading = time.perf_counter() - started
    options = {"resume": values.resume, "overwrite": values.overwrite, "pictures": values.pictures}
    try:
        summary = training.train(config, values.out, **options)
    except KeyboardInterrupt as stop:
        said = f"{name_of(stop)}. The same command with --resume goes on after the last epoch."
        print(f"\nkeras-popup: {said}", file=sys.stderr)
        return status_of(stop)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        said = f"{error.strerror}. Make space: the same command with --resume goes on after the last epoch."
        print(f"\nkeras-popup: {said}", file=sys.stderr)
        return 1
    except training.DivergenceError as error:
        print(f"keras-popup: {error}", file=sys.stderr)
        return DIVERGED
    _print_summary(summary, values.out, loading)
    return 0


# What a run that is finetuned takes from its own run, where it is not given.
_OF_SOURCE = ("model", "width", "precision", "dataset", "data_dir", "image_size", "augment", "validation", "seed")


def _arguments_of(folder: str, values: flags.FlagValues) -> dict[str, Any]:
    """Returns the arguments of the run in `folder` that the command line leaves out."""
    search = SearchFolder(folder)
    if search.is_one() and (best := search.best()) is not None:
        folder = os.path.join(folder, best.folder, str(best.execution))  # the winner
    run = RunFolder(folder)
    if not run.is_one() or not run.model.exists():
        raise UsageError(f"--from must be the folder of a finished run or search. Received: '{folder}'.")
    source = run.config()
    arguments = {name: source[name] for name in _OF_SOURCE if name in source and not values[name].present}
    return {"from_run": folder, **arguments}


def _print_summary(summary: dict[str, Any], out: str, loading: float) -> None:
    share = summary["kept"] / summary["weights"]
    if summary["test"]:
        print(f"\ntest accuracy  {summary['test']['accuracy']:.2%} ({summary['data']['test']:,} images)")
    else:  # a trial of a search is not tested
        print(f"\nvalidation accuracy  {summary['validation']['accuracy']:.2%}")
    print(f"weights kept   {summary['kept']:,} of {summary['weights']:,} ({share:.1%})")
    print(f"training       {summary['seconds']:.0f} s, {summary['images_per_second']:,.0f} images/s")
    if summary.get("times"):
        print(f"time           {format_times({'TensorFlow': loading, **summary['times']})}")
    if not os.path.isdir(out):
        return  # worker 0 has the folder
    print(f"run folder     {out}")
    curves = os.path.join(out, "curves.png")
    if os.path.exists(curves):
        print(f"curves         {curves}")
    page = os.path.join(out, "report.html")
    if os.path.exists(page):
        print(f"page           {page}")
    print("\nnext:")
    if not os.path.exists(page):
        print(f"  keras-popup report {out}        a page with curves and masks")
    print(f"  keras-popup evaluate {out}      the accuracy on the test images, of each class")
    if summary["kept"] < summary["weights"]:
        print(f"  keras-popup ticket pack {out}   the network as a file of about one bit per weight, or less")
