"""The command `predict`."""

import json
import os
from collections.abc import Sequence
from typing import Any

from absl import flags

from keras_popup.cli.flags import UsageError, parse
from keras_popup.cli.models import find_model_file, find_origin, load_plain_model
from keras_popup.cli.quiet import import_quietly

_PREDICT_HELP = """\
keras-popup predict: what a model sees in images

usage:
  keras-popup predict MODEL IMAGE... [flags]     MODEL is the folder of a run or search, a .keras file or a ticket

An image is a JPEG, PNG, GIF, BMP or WebP file. It is cropped to its centre and resized to what the model takes; alpha
is dropped. Prints the most probable classes. Images should look like those of the training: digits of the dataset
`digits` are light on black.

examples:
  keras-popup predict runs/first digit.png
  keras-popup predict model.ticket photos/*.jpg --top 3
"""


def predict(arguments: Sequence[str]) -> int:
    """`keras-popup predict`: prints the most probable classes of images and returns the exit status."""
    values = flags.FlagValues()
    flags.DEFINE_integer(
        "top", 3, "How many classes to print.", lower_bound=1, upper_bound=1_000_000, flag_values=values
    )
    flags.DEFINE_boolean("json", False, "Print a line of JSON for each image.", flag_values=values)
    if (given := parse(values, "predict", arguments, _PREDICT_HELP, "MODEL", "IMAGE...")) is None:
        return 0
    path, *images = given
    file = find_model_file(path)
    if missing := [image for image in images if not os.path.isfile(image)]:
        raise UsageError(f"There is no image '{missing[0]}'.")
    with import_quietly():
        from keras_popup import datasets
    model = load_plain_model(file)
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:]:
        raise ValueError(f"The model must take images of a fixed size. It takes {shape}.")
    classes = find_origin(path, file).classes
    for image in images:
        outputs = model.predict_on_batch(datasets.read_image(image, shape[1:])[None])
        probabilities = _to_probabilities(outputs, _find_activation(model))
        names = classes if len(classes) == len(probabilities) else tuple(map(str, range(len(probabilities))))
        best = sorted(range(len(names)), key=lambda number: -probabilities[number])[: values.top]
        found = {names[number]: float(probabilities[number]) for number in best}
        if values.json:
            print(json.dumps({"image": image, "classes": found}))
        else:
            print(f"{image}: " + ", ".join(f"{name} {share:.1%}" for name, share in found.items()))
    return 0


def _find_activation(model: Any) -> str:
    """Returns the name of the function that gives a model's outputs; "" if it is not known."""
    last = model.layers[-1]
    if type(last).__name__ == "Softmax":
        return "softmax"
    return str(getattr(getattr(last, "activation", None), "__name__", ""))


def _to_probabilities(outputs: Any, activation: str) -> Any:
    """Returns the probabilities of one image. Of a model with one output they are those of two classes."""
    import numpy as np

    if not isinstance(outputs, np.ndarray) or outputs.ndim != 2:
        raise ValueError("The model must have one output for each class.")
    values = outputs[0].astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"The model gives {values}, which are not finite numbers.")
    if activation in ("softmax", "sigmoid") and values.size > 1:
        return values
    if values.size == 1:
        share = values[0] if activation == "sigmoid" else 1 / (1 + np.exp(-values[0]))
        return np.array([1 - share, share])
    if not activation and (values >= 0).all() and abs(values.sum() - 1) < 1e-3:
        return values
    exponentials = np.exp(values - values.max())  # the outputs are logits
    return exponentials / exponentials.sum()
