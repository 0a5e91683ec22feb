"""Made models-v1, by the version of commit 950fe26. No later version may fail to read it. Not to be run again.

python tests/golden/make_models.py

models.json says what there is, and what masks and trainable weights each model has; values.npz has inputs and outputs.
"""

import json
import math
from pathlib import Path

import golden_blocks
import keras
import numpy as np
import tensorflow as tf
from golden_blocks import functional

import keras_popup
from keras_popup import layers, selectors

FOLDER = Path(__file__).parent / "models-v1"
STEPS = 4  # of training before a model is saved, and as many after

L2 = keras.regularizers.L2(0.01)


def layer_cases():
    """Yields (name, masked layer, shape of one input): one of each class, and of each kind of argument."""
    made = {"k": 0.4, "seed": 7, "name": "layer"}
    yield "dense", layers.MaskedDense(12, **made), (9,)
    yield "dense_bias", layers.MaskedDense(12, use_bias=True, activation="relu", **made), (3, 9)
    yield "dense_frozen_bias", layers.MaskedDense(12, use_bias=True, train_bias=False, **made), (9,)
    yield "einsum_dense", layers.MaskedEinsumDense("abc,cde->abde", (3, 3, 6), **made), (3, 6)
    yield "einsum_dense_bias", layers.MaskedEinsumDense("...x,xy->...y", 12, bias_axes="y", **made), (3, 9)
    yield "conv1d", layers.MaskedConv1D(12, 3, padding="causal", dilation_rate=2, **made), (7, 3)
    yield "conv2d_groups", layers.MaskedConv2D(6, 3, groups=2, strides=2, use_bias=True, **made), (6, 6, 4)
    regularizers = {"kernel_regularizer": L2, "scores_regularizer": L2, "bias_regularizer": L2}
    yield "conv2d", layers.MaskedConv2D(4, 3, padding="same", use_bias=True, **regularizers, **made), (6, 6, 3)
    yield "conv3d", layers.MaskedConv3D(3, (3, 2, 2), **made), (4, 4, 4, 3)
    yield "depthwise1d", layers.MaskedDepthwiseConv1D(3, depth_multiplier=4, **made), (7, 9)
    yield "depthwise2d", layers.MaskedDepthwiseConv2D(3, depth_multiplier=2, use_bias=True, **made), (6, 6, 6)
    yield "conv2d_transpose", layers.MaskedConv2DTranspose(4, 3, strides=2, use_bias=True, **made), (4, 4, 3)
    yield "bernoulli", layers.MaskedDense(12, selector="bernoulli", **made), (9,)
    yield "bernoulli_rescale", layers.MaskedDense(12, selector=selectors.Bernoulli(rescale=True), **made), (9,)
    yield "own_selector", layers.MaskedDense(12, selector=golden_blocks.Positive(), **made), (9,)
    yield "mixed_bfloat16", layers.MaskedDense(12, use_bias=True, dtype="mixed_bfloat16", **made), (9,)
    yield "he_uniform", layers.MaskedConv1D(12, 3, kernel_initializer="he_uniform", **made), (7, 3)


def drawn_cases():
    """Yields (name, masked layer, shape of one input), the weights of which are those that its seed gives."""
    scaled = keras_popup.initializers.KaimingNormal(scaled=True)
    made = {"k": 0.4, "seed": 7, "name": "layer"}
    yield "drawn_signed_constant", layers.MaskedConv2DTranspose(4, 3, strides=2, **made), (4, 4, 3)
    yield "drawn_kaiming_normal", layers.MaskedDense(12, kernel_initializer=scaled, **made), (9,)


def nested_sequential():
    conv = keras.layers.Conv2D(4, 3, name="conv")
    inner = keras.Sequential([keras.Input((5, 5, 3)), conv, keras.layers.BatchNormalization(name="norm")], name="inner")
    outer = [keras.Input((5, 5, 3)), inner, keras.layers.Flatten(), keras.layers.LayerNormalization(name="last")]
    return keras.Sequential([*outer, keras.layers.Dense(3, name="classes")], name="golden")


def shared_twice():
    """A layer, and a model that holds another, each called on two inputs."""
    left, right = keras.Input((9,), name="left"), keras.Input((9,), name="right")
    tower = functional((9,), keras.layers.Dense(12, activation="tanh", name="inner"), name="tower")
    shared = keras.layers.Dense(9, name="shared")
    both = keras.layers.Subtract(name="both")([shared(tower(left)), shared(tower(right))])
    outputs = [keras.layers.Dense(12, name="classes")(both), keras.layers.Dense(12, name="values")(both * 2.0 + 1.0)]
    return keras.Model([left, right], outputs, name="golden")


def kept_weights():
    return functional(
        (9,),
        keras.layers.Dense(12, name="hidden"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.PReLU(name="prelu"),
        golden_blocks.Scaled(9, name="scaled"),
        keras.layers.Dense(12, name="classes"),
    )


def composite_cases():
    """Yields (name, model with masks by `mask_model`)."""
    attention = functional((5, 9), keras.layers.MultiHeadAttention(3, 4, name="attention"))
    block = functional((9,), golden_blocks.Block(3, name="block"), keras.layers.Dense(9, name="classes"))
    made_in_build = functional((9,), golden_blocks.Projection(12, name="one"), golden_blocks.Projection(9, name="two"))
    dense = keras.layers.Dense(12, name="dense")
    time_distributed = functional((4, 9), keras.layers.TimeDistributed(dense, name="each"))
    lstm = keras.layers.Bidirectional(keras.layers.LSTM(6, name="lstm"), name="both_ways")
    recurrent = functional((4, 3), lstm, keras.layers.Dense(9, name="classes"))
    given = functional((9,), golden_blocks.Gated(keras.layers.Dense(12, name="dense"), name="gated"))
    excluded = functional((9,), keras.layers.Dense(12, name="hidden"), keras.layers.Dense(9, name="classes"))
    mask = keras_popup.mask_model
    yield "attention", mask(attention, 0.4, seed=1)
    yield "block", mask(block, 0.4, seed=1)
    yield "made_in_build", mask(made_in_build, {"one": 0.3, "*": 0.6}, seed=1)
    yield "subclassed", golden_blocks.classifier()
    yield "time_distributed", mask(time_distributed, 0.4, train_biases=True, seed=1)
    yield "recurrent", mask(recurrent, 0.4, seed=1)
    yield "shared_twice", mask(shared_twice(), 0.4, seed=1)
    yield "nested_sequential", mask(nested_sequential(), 0.4, seed=1)
    yield "keep", mask(kept_weights(), 0.4, weights="keep", seed=1)
    yield "keep_encoder", mask(golden_blocks.encoder(), 0.4, weights="keep", exclude="classes", seed=1)
    yield "keep_norms", mask(kept_weights(), 0.4, weights="keep", train_biases=True, train_norms=True, seed=1)
    yield "keep_given", mask(given, 0.4, weights="keep", seed=1)
    yield "exclude", mask(excluded, 0.4, exclude="classes", seed=1)


def trained_cases():
    """Yields (name, model, optimizer).

    Some gradients are 0 but for rounding, such as that of a bias before a BatchNormalization. With a smaller epsilon
    Adam would make steps of them, other ones on another processor.
    """
    adam = {"learning_rate": 0.01, "epsilon": 0.01}
    yield "trained_sgd", golden_blocks.by_hand(), keras.optimizers.SGD(0.1, momentum=0.9)
    yield "trained_adam", golden_blocks.by_hand(), keras.optimizers.Adam(**adam)
    yield "trained_bernoulli", golden_blocks.supermask(), keras.optimizers.SGD(1.0, momentum=0.9)
    yield "trained_transformer", golden_blocks.transformer(), keras.optimizers.Adam(**adam)
    yield "trained_subclassed", golden_blocks.classifier(), keras.optimizers.SGD(0.1, momentum=0.9)


class Writer:
    """Writes files, and notes what is in them."""

    def __init__(self):
        self.rng = np.random.default_rng(1)
        self.notes, self.values = {}, {}

    def randomise(self, model):
        """Gives all weights other values than they were made with, so that one that is lost or exchanged shows."""
        for weight in model.weights:
            if weight.name == "draws":
                weight.assign(self.rng.integers(10, 100))
            elif weight.name == "moving_variance":
                weight.assign(self.rng.uniform(0.5, 2, weight.shape))
            elif weight.name != "k" and weight.dtype == "float32":
                weight.assign(self.rng.normal(0, 0.5, weight.shape))

    def random(self, shape):
        return self.rng.normal(size=shape).astype(np.float32)

    def write(self, name, model, shapes, weights_only=False, strip=True, drawn=False):
        """Writes a model, with inputs of these shapes and its outputs.

        Args:
            weights_only: whether its weights are written without it.
            strip: whether its masks can be stripped.
            drawn: whether its weights are those that its seeds give.
        """
        inputs = [self.random((2, *shape)) for shape in shapes]
        for number, x in enumerate(inputs):
            self.values[f"{name}/inputs/{number}"] = x
        for number, y in enumerate(run(model, inputs)):
            self.values[f"{name}/outputs/{number}"] = y
        file = FOLDER / f"{name}{'.weights.h5' if weights_only else '.keras'}"
        model.save_weights(file) if weights_only else model.save(file)
        note = {"file": file.name, "strip": strip, "drawn": drawn, "trainable": trainable(model)}
        summary = keras_popup.mask_summary(model, print_fn=lambda text: None)
        note["kept"] = {row.path: row.kept for row in summary.layers if row.kept is not None}
        note["losses"] = math.fsum(float(loss) for loss in model.losses)
        if not weights_only and trainable(loaded := keras.models.load_model(file)) != note["trainable"]:
            note["trainable_when_loaded"] = trainable(loaded)
        self.values[f"{name}/sums"] = np.array([np.sum(w.numpy(), dtype="f8") for w in model.trainable_variables])
        self.notes[name] = note
        return inputs

    def train(self, name, model, optimizer):
        """Trains a model, writes it, and goes on with its training."""
        (shape,) = shapes_of(model)
        self.randomise(model)
        model.compile(optimizer, "mse")
        x = self.random((2 * STEPS, 4, *shape))
        y = np.stack([self.random(run(model, [batch])[0].shape) for batch in x])
        for step in range(STEPS):
            model.train_on_batch(x[step], y[step])
        inputs = self.write(name, model, [shape])
        for step in range(STEPS, 2 * STEPS):
            model.train_on_batch(x[step], y[step])
        self.values |= {f"{name}/x": x[STEPS:], f"{name}/y": y[STEPS:]}
        self.values[f"{name}/outputs_later"] = run(model, inputs)[0]
        weights = [weight.numpy().ravel() for weight in model.trainable_variables]
        self.values[f"{name}/weights_later"] = np.concatenate(weights)

    def finish(self):
        np.savez_compressed(FOLDER / "values.npz", **self.values)
        rows = [f"  {json.dumps(name)}: {json.dumps(note)}" for name, note in self.notes.items()]
        (FOLDER / "models.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")


def run(model, inputs):
    """Returns what a model gives, outside of training, as float32."""
    outputs = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    return [tf.cast(y, tf.float32).numpy() for y in keras.tree.flatten(outputs)]


def trainable(model):
    """Returns names and shapes of the trainable weights of a model, in their order."""
    return [[weight.name, list(weight.shape)] for weight in model.trainable_variables]


def shapes_of(model):
    """Returns the shapes of a model's inputs, one of each."""
    inputs = getattr(model, "inputs", None)  # the subclassed model has none
    return [tuple(x.shape[1:]) for x in inputs] if inputs else [(5, 5, 3)]


def main():
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(1)
    FOLDER.mkdir(exist_ok=True)
    writer = Writer()
    for name, layer, shape in layer_cases():
        model = functional(shape, layer)
        writer.randomise(model)
        writer.write(name, model, [shape])
    for name, layer, shape in drawn_cases():
        writer.write(name, functional(shape, layer), [shape], drawn=True)
    model = functional((9,), layers.MaskedDense(12, k=0.4, seed=7, name="layer"))
    model.get_layer("layer").k = 0.7
    writer.randomise(model)
    writer.write("k_set_later", model, [(9,)])
    model = functional((9,), golden_blocks.MadeMasked(12, name="made"))
    writer.randomise(model)
    writer.write("made_masked", model, [(9,)], strip=False)
    for name, model in composite_cases():
        writer.randomise(model)
        writer.write(name, model, shapes_of(model))
    for name, make in golden_blocks.WEIGHTS.items():
        model = make()
        writer.randomise(model)
        writer.write(name, model, shapes_of(model), weights_only=True)
    for case in trained_cases():
        writer.train(*case)
    writer.finish()


if __name__ == "__main__":
    main()
