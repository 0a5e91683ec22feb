"""The command `evaluate`."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

from absl import flags

from keras_popup.cli.flags import UsageError, parse
from keras_popup.cli.models import Origin, check_data_dir, find_model_file, find_origin, load_plain_model
from keras_popup.cli.quiet import import_quietly, say

_EVALUATE_HELP = """\
keras-popup evaluate: the accuracy of a model on test images

usage:
  keras-popup evaluate MODEL [flags]     MODEL is the folder of a run or search, a .keras file or a ticket

Without --dataset, the test images are those of the data that the model was trained on, as its file names them.

examples:
  keras-popup evaluate runs/first
  keras-popup evaluate model.ticket --dataset fashion_mnist --data_dir tfds
  keras-popup evaluate model.keras --dataset pets --data_dir photos     photos/test/<class>/*.jpg
"""

_MOST_CLASSES = 30  # whose accuracies are shown


def evaluate(arguments: Sequence[str]) -> int:
    """`keras-popup evaluate`: prints the accuracy of a model and returns the exit status."""
    values = flags.FlagValues()
    more: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_string(
        "dataset", None, "As for `train`: digits, a name of TensorFlow Datasets, or any name for a folder.", **more
    )
    text = "A folder of images with the splits train and test, or the directory of TensorFlow Datasets."
    flags.DEFINE_string("data_dir", None, text, **more)
    flags.DEFINE_integer(
        "image_size", None, "Pixels that images are cropped and resized to.", lower_bound=1, upper_bound=10_000, **more
    )
    flags.DEFINE_integer("batch_size", 128, "Images at a time.", lower_bound=1, upper_bound=1_000_000, **more)
    flags.DEFINE_boolean("json", False, "Print one line of JSON instead of text.", **more)
    if (given := parse(values, "evaluate", arguments, _EVALUATE_HELP, "MODEL")) is None:
        return 0
    (path,) = given
    file = find_model_file(path)
    check_data_dir(values.data_dir)
    with import_quietly():
        from keras_popup import datasets
    origin = find_origin(path, file)
    name = values.dataset or origin.dataset
    if name is None:
        raise UsageError(f"'{file}' does not say which data it was trained on. Name them with --dataset.")
    own = values.dataset is None
    data_dir = values.data_dir or (origin.data_dir if own else None)
    size = values.image_size or (origin.image_size if own else None)
    try:
        data = datasets.load(name, data_dir=data_dir, image_size=size, validation=0.0)
    except (OSError, ValueError) as error:
        hint = (
            ""
            if data_dir or name == "digits"
            else " The file of a model does not say where its data are: pass --data_dir."
        )
        raise ValueError(f"{error}{hint}") from error
    say(f"Reading {data.test.size:,} test images of {name}.")
    model = load_plain_model(file)
    _check(model, data, origin)
    correct, total = _count_correct(model, data.evaluation_batches("test", values.batch_size))
    accuracy = float(correct.sum() / total.sum())
    by_class = {each: float(c / t) for each, c, t in zip(data.classes, correct, total, strict=True) if t}
    if values.json:
        record = {"model": file, "dataset": name, "images": int(total.sum()), "accuracy": accuracy, "classes": by_class}
        print(json.dumps(record))
        return 0
    print(f"accuracy       {accuracy:.2%} of {int(total.sum()):,} test images of {name}")
    if len(by_class) <= _MOST_CLASSES:
        width = max(map(len, by_class))
        for each, share in by_class.items():
            print(f"  {each:{width}}  {share:7.2%}")
    say(f"next: keras-popup predict {path} IMAGE...")
    return 0


def _check(model: Any, data: Any, origin: Origin) -> None:
    """Raises ValueError if the data do not fit the model."""
    import keras

    outputs = model.output_shape
    is_one = isinstance(model.output, keras.KerasTensor) if getattr(model, "inputs", None) else True
    if not is_one or not isinstance(outputs, tuple) or len(outputs) != 2 or outputs[1] != len(data.classes):
        raise ValueError(
            f"The model must have one output for each of the {len(data.classes)} classes of the data. It has {outputs}."
        )
    if origin.classes and origin.classes != data.classes:
        pairs = itertools.zip_longest(origin.classes, data.classes)
        number, (theirs, ours) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
        raise ValueError(
            "The model was trained on other classes, or in another order. "
            f"Class {number} is {theirs!r} to the model and {ours!r} in the data. Evaluate it on data with its own "
            "classes."
        )
    expected, received = tuple(model.input_shape[1:]), tuple(data.image_shape)
    if len(expected) != 3 or any(None not in (a, b) and a != b for a, b in zip(expected, received, strict=True)):
        hint = f" Resize them with --image_size {expected[0]}." if len(expected) == 3 and expected[0] else ""
        raise ValueError(f"The model takes images of shape {expected}; those of the data have {received}.{hint}")


def _count_correct(model: Any, batches: Any) -> tuple[Any, Any]:
    """Returns how many images of each class are told right, and how many there are."""
    import numpy as np

    correct, total = (np.zeros(model.output_shape[1], np.int64) for _ in range(2))
    for images, labels in batches:
        classes = np.argmax(labels, axis=1)
        right = np.argmax(model.predict_on_batch(images), axis=1) == classes
        np.add.at(total, classes, 1)
        np.add.at(correct, classes[right], 1)
    return correct, total
