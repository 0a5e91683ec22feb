"""remove_dead: smaller networks with the outputs of the whole ones."""

import keras
import numpy as np
import pytest
from blocks import Classifier, MyDense
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_popup import _keras, layers, mask_model, models, strip_masks
from keras_popup.conversion import find_dead, removal, remove_dead

L = keras.layers


def randomized(model, seed=0):
    """The model, every weight random, none of them zero."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        values = rng.normal(size=variable.shape)
        variable.assign(values**2 + 0.1 if "variance" in variable.path else values)
    return model


def cut(layer, outputs=(), inputs=(), **values):
    """Sets the weights of channels to zero, and those of other variables to a number."""
    if outputs or inputs:
        kernel = layer.kernel.numpy()
        of_outputs = kernel.swapaxes(-1, -2) if "Transpose" in type(layer).__name__ else kernel
        of_outputs[..., list(outputs)] = 0
        of_outputs[..., list(inputs), :] = 0
        layer.kernel.assign(kernel)
    for name, value in values.items():
        getattr(layer, name).assign(np.full(getattr(layer, name).shape, value))


def stack(shape, *parts, **cuts):
    """A Functional model of layers one after the other, and what `cut` does to some by their names."""
    inputs = keras.Input(shape)
    x = inputs
    for part in parts:
        x = part(x)
    model = randomized(keras.Model(inputs, x))
    for name, arguments in cuts.items():
        cut(model.get_layer(name), **arguments)
    return model


def outputs_of(model, seed=1):
    rng = np.random.default_rng(seed)
    batch = [rng.normal(size=(3, *(size or 7 for size in x.shape[1:]))) for x in model.inputs]
    batch = [values if "float" in x.dtype else abs(values) for x, values in zip(model.inputs, batch, strict=True)]
    outputs = model(_keras.pack_inputs(model, batch), training=False)
    return [np.asarray(keras.ops.cast(output, "float64")) for output in keras.tree.flatten(outputs)]


def assert_same(smaller, model, tolerance=1e-5):
    for one, other in zip(outputs_of(smaller), outputs_of(model), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max())


def dense(units, name, **arguments):
    return L.Dense(units, name=name, **arguments)


def conv(filters, name, size=3, **arguments):
    return L.Conv2D(filters, size, name=name, **arguments)


def norm(name="norm"):
    return L.BatchNormalization(name=name)


@keras.saving.register_keras_serializable("tests")
def centered(x):
    return x - keras.ops.mean(x, axis=-1, keepdims=True)


ALIVE, DEAD = {"bias": 0.7}, {"outputs": [1, 4]}

CHAINS = {
    # Dense layers.
    "folds": (lambda: stack((5,), dense(6, "a"), dense(3, "b"), a=DEAD), {"a": 2}),
    "folds_into_a_new_bias": (
        lambda: stack((5,), dense(6, "a"), dense(3, "b", use_bias=False), a={**DEAD, **ALIVE}),
        {"a": 2},
    ),
    "zeros_need_no_bias": (
        lambda: stack((5,), dense(6, "a", activation="relu"), dense(3, "b", use_bias=False), a={**DEAD, "bias": -1}),
        {"a": 2},
    ),
    "any_activation": (
        lambda: stack((5,), dense(6, "a", activation="gelu"), L.LeakyReLU(), L.ELU(), dense(3, "b"), a=DEAD),
        {"a": 2},
    ),
    "on_several_axes": (lambda: stack((4, 5), dense(6, "a"), dense(3, "b"), a=DEAD), {"a": 2}),
    "unread": (lambda: stack((5,), dense(6, "a"), dense(3, "b"), b={"inputs": [0, 1]}), {"a": 2}),
    "unread_through_two_layers": (
        lambda: stack(
            (5,),
            *(dense(6, "a"), dense(2, "b"), dense(3, "c")),
            b={"inputs": [0, 1]},
            c={"inputs": [1]},
        ),
        {"a": 2, "b": 1},
    ),
    "only_read_by_what_leaves": (
        lambda: stack(
            (5,),
            *(dense(6, "a"), dense(6, "b"), dense(3, "c")),
            b=DEAD,
            c={"inputs": [0, 2, 3, 5]},
        ),
        {"a": 5, "b": 5},  # one of each is left
    ),
    "constant_of_constants": (
        lambda: stack((5,), dense(3, "a"), dense(2, "b"), dense(3, "c"), a={"outputs": [0, 1, 2]}),
        {"a": 2, "b": 1},
    ),
    "rescaled": (lambda: stack((5,), dense(6, "a"), L.Rescaling(2.0, 1.0), dense(3, "b"), a=DEAD), {"a": 2}),
    # Convolutions.
    "valid": (
        lambda: stack((8, 8, 3), conv(6, "a"), norm(), L.ReLU(), conv(4, "b"), a=DEAD, norm={"beta": 1}),
        {"a": 2},
    ),
    "same_of_zeros": (
        lambda: stack(
            (8, 8, 3),
            conv(6, "a"),
            norm(),
            L.ReLU(),
            conv(4, "b", padding="same"),
            a={**DEAD, "bias": -9},
            norm={"beta": -9, "gamma": 1},
        ),
        {"a": 2},
    ),
    "same_of_others": (
        lambda: stack(
            (8, 8, 3),
            conv(6, "a", use_bias=False),
            conv(6, "a2", use_bias=False),
            norm(),
            conv(4, "b", padding="same"),
            a2=DEAD,
        ),
        {"a2": "zero padding"},
    ),
    "same_without_a_border": (
        lambda: stack((8, 8, 3), conv(6, "a"), conv(4, "b", 1, padding="same"), a=DEAD),
        {"a": 2},
    ),
    "same_to_the_dead_one": (
        lambda: stack((8, 8, 3), conv(6, "a", padding="same"), conv(4, "b"), a=DEAD),
        {"a": 2},
    ),
    "zero_padding_of_zeros": (
        lambda: stack((8, 8, 3), conv(6, "a", use_bias=False), L.ZeroPadding2D(1), conv(4, "b"), a=DEAD),
        {"a": 2},
    ),
    "zero_padding_of_others": (
        lambda: stack((8, 8, 3), conv(6, "a"), L.ZeroPadding2D(1), conv(4, "b"), a={**DEAD, **ALIVE}),
        {"a": "zero padding"},
    ),
    "zero_padding_of_unread": (
        lambda: stack((8, 8, 3), conv(6, "a"), L.ZeroPadding2D(1), conv(4, "b"), b={"inputs": [2]}),
        {"a": 1},
    ),
    "strides": (lambda: stack((9, 9, 3), conv(6, "a"), conv(4, "b", strides=2), a=DEAD), {"a": 2}),
    "dilated": (lambda: stack((9, 9, 3), conv(6, "a"), conv(4, "b", dilation_rate=2), a=DEAD), {"a": 2}),
    "pooled_and_flattened": (
        lambda: stack(
            (12, 12, 3),
            *(conv(6, "a"), L.MaxPooling2D(2), L.AveragePooling2D(2, padding="same"), L.UpSampling2D(2)),
            *(L.Cropping2D(1), L.Dropout(0.5), L.SpatialDropout2D(0.5), L.Flatten(), dense(3, "b")),
            a=DEAD,
        ),
        {"a": 2},
    ),
    "pooled_globally": (
        lambda: stack((8, 8, 3), conv(6, "a"), L.GlobalAveragePooling2D(), L.GaussianNoise(1.0), dense(3, "b"), a=DEAD),
        {"a": 2},
    ),
    "reshaped": (
        lambda: stack(
            (8, 8, 3), conv(6, "a"), L.Reshape((-1, 12)), dense(4, "b"), L.Reshape((72,)), dense(3, "c"), a=DEAD
        ),
        {"a": 2},
    ),
    "of_unknown_size": (
        lambda: stack(
            (None, None, 3), conv(6, "a"), norm(), L.Reshape((-1, 6)), L.GlobalMaxPooling1D(), dense(3, "b"), a=DEAD
        ),
        {"a": 2},
    ),
    "normalized_to_a_constant": (
        lambda: stack((8, 8, 3), conv(6, "a"), norm(), conv(4, "b"), norm={"gamma": 0}),
        {"a": 5},
    ),
    "causal": (
        lambda: stack(
            (9, 3), L.Conv1D(6, 3, name="a"), L.Conv1D(4, 3, padding="causal", name="b"), a={**DEAD, **ALIVE}
        ),
        {"a": "zero padding"},
    ),
    "three_axes": (
        lambda: stack((5, 5, 5, 3), L.Conv3D(6, 2, name="a"), L.MaxPooling3D(2), L.Conv3D(4, 2, name="b"), a=DEAD),
        {"a": 2},
    ),
    "transposed": (
        lambda: stack((8, 8, 3), L.Conv2DTranspose(6, 3, strides=2, name="a"), conv(4, "b"), a=DEAD),
        {"a": 2},
    ),
    "transposed_of_zeros": (
        lambda: stack((8, 8, 3), conv(6, "a", use_bias=False), L.Conv2DTranspose(4, 3, name="b"), a=DEAD),
        {"a": 2},
    ),
    "transposed_of_others": (
        lambda: stack((8, 8, 3), conv(6, "a"), L.Conv2DTranspose(4, 3, name="b"), a={**DEAD, **ALIVE}),
        {"a": "zero padding"},
    ),
    "transposed_unread": (
        lambda: stack((8, 8, 3), conv(6, "a"), L.Conv2DTranspose(4, 3, name="b"), b={"inputs": [3]}),
        {"a": 1},
    ),
    "depthwise": (
        lambda: stack(
            (8, 8, 3), conv(6, "a"), L.DepthwiseConv2D(3, depth_multiplier=2, name="d"), norm(), conv(4, "b"), a=DEAD
        ),
        {"a": 2, "d": 4},
    ),
    "depthwise_by_its_kernel": (
        lambda: stack(
            (8, 8, 3), conv(6, "a"), L.DepthwiseConv2D(3, padding="same", name="d"), conv(4, "b"), d={"inputs": [2, 3]}
        ),
        {"a": 2, "d": 2},
    ),
    "depthwise_padded": (
        lambda: stack(
            (8, 8, 3), conv(6, "a"), L.DepthwiseConv2D(3, padding="same", name="d"), conv(4, "b"), a={**DEAD, **ALIVE}
        ),
        {"a": "zero padding"},
    ),
    # What stays.
    "output": (lambda: stack((5,), dense(6, "a"), L.ReLU(), a=DEAD), {"a": "an output of the model"}),
    "all_dead": (lambda: stack((5,), dense(6, "a"), dense(3, "b"), a={"outputs": range(6)}), {"a": 5}),
    "normalized_across": (
        lambda: stack((5,), dense(6, "a"), L.LayerNormalization(name="n"), dense(3, "b"), a=DEAD),
        {"a": "read by 'n' (LayerNormalization)"},
    ),
    "softmax": (
        lambda: stack((5,), dense(6, "a", activation="softmax"), dense(3, "b"), a=DEAD),
        {},
    ),
    "softmax_layer": (
        lambda: stack((5,), dense(6, "a"), L.Softmax(name="s"), dense(3, "b"), a=DEAD),
        {"a": "read by 's'"},
    ),
    "activation_of_all": (
        lambda: stack((5,), dense(6, "a"), L.Activation("softmax", name="s"), dense(3, "b"), a=DEAD),
        {"a": "read by 's'"},
    ),
    "own_activation": (
        lambda: stack((5,), dense(6, "a", activation=centered), dense(3, "b"), a=DEAD),
        {},
    ),
    "own_activation_of_a_reader": (
        lambda: stack((5,), dense(6, "a"), dense(3, "b", activation=centered), a=DEAD),
        {"a": 2},
    ),
    "lambda": (
        lambda: stack((5,), dense(6, "a"), L.Lambda(lambda x: x[:, ::-1], name="l"), dense(3, "b"), a=DEAD),
        {"a": "read by 'l' (Lambda)"},
    ),
    "subclass": (lambda: stack((5,), dense(6, "a"), MyDense(3, name="m"), a=DEAD), {"a": "read by 'm' (MyDense)"}),
    "groups": (
        lambda: stack((8, 8, 3), conv(6, "a"), conv(4, "g", groups=2), conv(2, "b"), a=DEAD, g={"outputs": [0]}),
        {"a": "read by 'g'"},
    ),
    "separable": (
        lambda: stack((8, 8, 3), conv(6, "a"), L.SeparableConv2D(4, 3, name="s"), a=DEAD),
        {"a": "read by 's'"},
    ),
    "permuted": (
        lambda: stack((8, 5), dense(6, "a"), L.Permute((2, 1), name="p"), dense(3, "b"), a=DEAD),
        {"a": "read by 'p'"},
    ),
    "prelu": (lambda: stack((5,), dense(6, "a"), L.PReLU(name="p"), dense(3, "b"), a=DEAD), {"a": "read by 'p'"}),
    "split": (
        lambda: stack((5,), dense(6, "a"), L.Reshape((2, 3), name="r"), dense(3, "b"), a=DEAD),
        {"a": "read by 'r'"},
    ),
    "normalized_on_another_axis": (
        lambda: stack((4, 5), dense(6, "a"), L.BatchNormalization(axis=1, name="n"), dense(3, "b"), a=DEAD),
        {"a": "read by 'n'"},
    ),
    "channels_first": (
        lambda: stack((4, 5), dense(6, "a"), L.Flatten(data_format="channels_first", name="f"), dense(3, "b"), a=DEAD),
        {"a": "read by 'f'"},
    ),
    "recurrent": (lambda: stack((4, 5), dense(6, "a"), L.LSTM(3, name="r"), a=DEAD), {"a": "read by 'r'"}),
}


def check(model, expected, tolerance=1e-5):
    """Removes what is dead, compares the outputs, and compares what left and why others stayed with the expected."""
    before = model.get_weights()
    dead = {layer.path: layer for layer in find_dead(model).layers}
    smaller = remove_dead(model)
    assert_same(smaller, model, tolerance)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [layer.name for layer in smaller.layers] == [layer.name for layer in model.layers]
    numbers = {path: layer.leaving for path, layer in dead.items() if layer.leaving}
    assert numbers == {path: number for path, number in expected.items() if isinstance(number, int)}
    for path, reason in expected.items():
        if isinstance(reason, str):
            assert dead[path].staying
            assert all(reason in text for text in dead[path].staying), dead[path].staying
    for path, layer in dead.items():
        kept, owner = layer.channels - layer.leaving, smaller
        *holders, name = path.split("/")
        for holder in holders:
            owner = owner.get_layer(holder)
        assert owner.get_layer(name).output.shape[-1] == kept
    return smaller


@pytest.mark.parametrize("name", CHAINS)
def test_remove_dead_in_a_chain_of_layers(name):
    make, expected = CHAINS[name]
    smaller = check(make(), expected)
    if name in ("folds_into_a_new_bias", "zeros_need_no_bias"):
        assert smaller.get_layer("b").use_bias == (name == "folds_into_a_new_bias")


def two_branches(join, **arguments):
    """A convolution, two after it, joined, and one that reads the result."""
    inputs = keras.Input((8, 8, 3))
    x = conv(4, "stem")(inputs)
    one, other = conv(6, "one", **arguments)(x), conv(6, "other", **arguments)(x)
    joined = join(one, other)
    return randomized(keras.Model(inputs, conv(3, "last")(L.ReLU()(joined))))


def added(one, other):
    return L.Add()([one, other])


def side_by_side(*tensors):
    return L.Concatenate()(list(tensors))


JOINTS = {
    "add_both": (lambda: two_branches(added), {"one": {"outputs": [1, 4]}, "other": {"outputs": [1, 2]}}, 1, 1),
    "add_one": (lambda: two_branches(added), {"one": {"outputs": [1, 4]}}, 0, 0),
    "add_unread": (lambda: two_branches(added), {"last": {"inputs": [1, 4]}}, 2, 2),
    "plus": (lambda: two_branches(lambda a, b: a + b), {"one": DEAD, "other": DEAD}, 2, 2),
    "minus_with_numbers": (lambda: two_branches(lambda a, b: a * 2.0 - b / 3), {"one": DEAD, "other": DEAD}, 2, 2),
    "maximum": (lambda: two_branches(lambda a, b: L.Maximum()([a, b])), {"one": DEAD, "other": DEAD}, 2, 2),
    "multiply": (
        lambda: two_branches(lambda a, b: L.Multiply()([a, b]), use_bias=False),
        {"one": {"outputs": [1]}, "other": {"outputs": [4]}},
        2,
        2,
    ),
    "multiply_operation": (lambda: two_branches(lambda a, b: a * b, use_bias=False), {"one": {"outputs": [1]}}, 1, 1),
    "multiply_by_a_number": (lambda: two_branches(lambda a, b: L.Multiply()([a, b])), {"one": DEAD}, 0, 0),
    "concatenate": (
        lambda: two_branches(lambda a, b: L.Concatenate()([a, b])),
        {"one": DEAD, "other": {"outputs": [0]}},
        2,
        1,
    ),
    "concatenate_rows": (
        lambda: two_branches(lambda a, b: L.Concatenate(axis=1)([a, b])),
        {"one": DEAD, "other": DEAD},
        0,
        0,
    ),
    "by_arrays": (
        lambda: two_branches(lambda a, b: added(a, b) + np.ones(6, "float32")),
        {"one": DEAD, "other": DEAD},
        0,
        0,
    ),
    "dense_blocks": (
        lambda: two_branches(
            lambda a, b: L.Concatenate()([a, conv(2, "inner", padding="same")(L.Concatenate()([a, b])), b])
        ),
        {"other": {**DEAD, "bias": 0.0}},
        0,
        2,
    ),
    "squeezed": (
        lambda: two_branches(
            lambda a, b: L.Multiply()(
                [a, conv(6, "gate", 1, activation="sigmoid")(L.Reshape((1, 1, 6))(L.GlobalAveragePooling2D()(a)))]
            )
        ),
        {"one": {**DEAD, "bias": 0.0}},
        2,
        0,
    ),
}


@pytest.mark.parametrize("name", JOINTS)
def test_remove_dead_where_branches_join(name):
    make, cuts, one, other = JOINTS[name]
    model = make()
    for layer, arguments in cuts.items():
        cut(model.get_layer(layer), **arguments)
    expected = {"one": one, "other": other} if name != "squeezed" else {"one": one, "gate": one}
    check(model, {layer: number for layer, number in expected.items() if number})


def test_remove_dead_along_a_residual_stream():
    """Two Adds join three layers: a channel leaves only if it is constant in all of them."""
    inputs = keras.Input((6,))
    x = dense(5, "a")(inputs)
    for name in ("b", "c"):
        x = L.Add()([x, dense(5, f"{name}2")(dense(4, name, activation="relu")(x))])
    model = randomized(keras.Model(inputs, dense(3, "last")(x)))
    for name in ("a", "b2", "c2"):
        cut(model.get_layer(name), outputs=[0, 2])
    cut(model.get_layer("a"), outputs=[1])
    cut(model.get_layer("c2"), inputs=[3])
    check(model, {"a": 2, "b2": 2, "c2": 2, "c": 1})


def test_remove_dead_keeps_layers_that_are_used_twice():
    inputs, twice, relu = keras.Input((5,)), dense(5, "twice"), L.ReLU(name="relu")
    x = relu(dense(6, "b")(relu(dense(5, "a")(twice(twice(inputs))))))
    model = randomized(keras.Model(inputs, dense(3, "c")(x)))
    for name in ("twice", "a", "b"):
        cut(model.get_layer(name), outputs=[0, 3])
    check(model, {"a": 2, "b": 2})


def test_remove_dead_keeps_layers_that_another_layer_holds():
    inputs, shared = keras.Input((4, 5)), dense(6, "shared")
    x, y = shared(dense(5, "a")(inputs)), L.TimeDistributed(shared)(inputs)
    model = randomized(keras.Model(inputs, dense(3, "b")(L.Add()([x, y]))))
    cut(shared, outputs=[0, 1])
    cut(model.get_layer("a"), outputs=[2])
    check(model, {})


def test_remove_dead_in_models_inside_of_models():
    inner = stack((8, 8, 6), conv(6, "a"), norm("n"), conv(4, "b"), a=DEAD, b={"outputs": [0]})
    inner.name = "inner"
    chain = keras.Sequential([keras.Input((4, 4, 4)), conv(5, "c"), L.Flatten(), dense(3, "d")], name="chain")
    inputs = keras.Input((10, 10, 3))
    outer = keras.Model(inputs, dense(2, "last")(chain(inner(conv(6, "first")(inputs)))))
    for layer, outputs in ((outer.get_layer("first"), [1]), (chain.get_layer("c"), [2, 3])):
        cut(layer, outputs=outputs)
    smaller = check(outer, {"inner/a": 2, "chain/c": 2})
    assert type(smaller.get_layer("chain")) is keras.Sequential


def test_remove_dead_leaves_models_alone_that_run_as_in_training():
    inner = stack((5,), dense(6, "a"), norm("n"), dense(4, "b"), a=DEAD)
    inputs = keras.Input((5,))
    model = keras.Model(inputs, inner(inputs, training=True))
    assert find_dead(model).layers == ()
    normalized = L.BatchNormalization(name="n")(dense(5, "a")(inputs), training=True)
    model = randomized(keras.Model(inputs, dense(2, "b")(normalized)))
    cut(model.get_layer("a"), outputs=[0])
    assert find_dead(model).leaving == 0


def test_remove_dead_of_a_sequential_model():
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), conv(6, "a"), norm(), L.ReLU(), conv(4, "b"), L.Flatten(), dense(2, "c")]
    )
    cut(randomized(model).get_layer("a"), **DEAD)
    cut(model.get_layer("c"), inputs=[4 * place + 1 for place in range(16)])
    cut(model.get_layer("c"), inputs=[4 * place + 2 for place in range(15)])  # one place is read
    smaller = check(model, {"a": 2, "b": 1})
    assert type(smaller) is keras.Sequential


def test_remove_dead_keeps_the_structure_of_inputs_and_outputs():
    inputs = {name: keras.Input((5,), name=name) for name in ("left", "right")}
    both = L.Concatenate()([dense(4, "a")(inputs["left"]), dense(4, "b")(inputs["right"])])
    outputs = {"one": dense(2, "c")(both), "other": dense(3, "d")(both)}
    model = randomized(keras.Model(inputs, outputs, name="both"))
    cut(model.get_layer("a"), outputs=[0])
    cut(model.get_layer("c"), inputs=[5])
    smaller = check(model, {"a": 1})
    assert set(smaller.output) == {"one", "other"}
    assert smaller.name == "both"
    assert [x.name for x in smaller.inputs] == [x.name for x in model.inputs]


def test_remove_dead_stops_at_tensors_with_a_keras_mask():
    tokens = keras.Input((6,), dtype="int32")
    x = dense(5, "a")(L.Embedding(4, 3, mask_zero=True)(tokens))
    model = randomized(keras.Model(tokens, dense(2, "b")(L.GlobalAveragePooling1D()(x))))
    cut(model.get_layer("a"), outputs=[0])
    assert find_dead(model).leaving == 0


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_bfloat16", 0.05), ("mixed_float16", 0.01), ("float64", 1e-12)]
)
def test_remove_dead_in_other_dtypes(policy, tolerance):
    keras.config.set_dtype_policy(policy)
    parts = conv(6, "a"), norm(), L.Activation("gelu"), L.DepthwiseConv2D(3, name="d"), conv(4, "b"), L.Flatten()
    model = stack((8, 8, 3), *parts, dense(3, "c"), a=DEAD, d={"inputs": [0]}, c={"inputs": range(0, 16, 4)})
    smaller = check(model, {"a": 3, "d": 3, "b": 1}, tolerance)
    assert smaller.get_layer("b").compute_dtype == model.get_layer("b").compute_dtype


def test_remove_dead_keeps_what_is_frozen():
    model = stack((5,), dense(6, "a"), norm(), dense(3, "b"), a=DEAD)
    model.get_layer("a").trainable = False
    model.get_layer("norm").gamma.trainable = False
    smaller = remove_dead(model)
    assert [weight.trainable for weight in smaller.weights] == [weight.trainable for weight in model.weights]
    assert [weight.path for weight in smaller.weights] == [weight.path for weight in model.weights]


def test_remove_dead_leaves_a_model_that_can_be_saved_trained_and_taken_apart(tmp_path):
    model = stack((8, 8, 3), conv(6, "a"), norm(), L.ReLU(), conv(4, "b"), L.Flatten(), dense(3, "c"), a=DEAD)
    smaller = remove_dead(model)
    smaller.save(tmp_path / "smaller.keras")
    assert_same(keras.models.load_model(tmp_path / "smaller.keras"), smaller, 0)
    assert smaller.get_layer("norm").output.shape == (None, 6, 6, 4)  # each layer is part of one graph only
    smaller.compile("sgd", "mse")
    smaller.fit(np.ones((2, 8, 8, 3)), np.ones((2, 3)), verbose=0)


def test_remove_dead_of_a_model_with_code_of_its_own(caplog):
    model = Classifier(3)
    model(np.zeros((1, 6, 6, 3), np.float32))
    cut(model.stem.layers[0], outputs=[0])
    smaller = remove_dead(model)
    x = np.ones((2, 6, 6, 3), np.float32)
    np.testing.assert_array_equal(smaller(x), model(x))
    assert "code of its own, so all its channels stay" in caplog.text


def test_remove_dead_compares_the_outputs(monkeypatch):
    model = stack((5,), dense(6, "a"), dense(3, "b"), a=DEAD)
    narrow = removal.narrow

    def narrow_wrongly(graphs):
        wrong = narrow(graphs)
        wrong.get_layer("b").bias.assign_add([1.0, 0.0, 0.0])
        return wrong

    monkeypatch.setattr(removal, "narrow", narrow_wrongly)
    with pytest.raises(RuntimeError, match="gives other outputs: they differ by"):
        remove_dead(model)


def kill_at_random(model, seed):
    """Sets kernels of whole channels to zero, on both sides, and lets some other weights be zero."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if (kernel := getattr(layer, "kernel", None)) is None:
            continue
        values = kernel.numpy() * (rng.random(kernel.shape) < 0.5)
        values[..., rng.random(kernel.shape[-1]) < 0.4 * rng.random()] = 0
        values[..., rng.random(kernel.shape[-2]) < 0.4 * rng.random(), :] = 0
        kernel.assign(values / np.sqrt(np.prod(kernel.shape[:-1])))
    return model


def draw_graph(seed):
    """A random network: branches, joints, every kind of layer that the rules know."""
    rng = np.random.default_rng(seed)
    inputs = keras.Input((6, 6, 3))
    tensors = [L.Conv2D(5, 3, padding="same")(inputs)]
    parts = [
        lambda x: L.Conv2D(5, 3, padding=str(rng.choice(["same", "valid"])), use_bias=bool(rng.integers(2)))(x),
        lambda x: L.Conv2D(5, 1, activation=str(rng.choice(["relu", "tanh", "gelu"])))(x),
        lambda x: L.Dense(5, activation="relu")(x),
        lambda x: L.DepthwiseConv2D(3, padding=str(rng.choice(["same", "valid"])))(x),
        lambda x: L.BatchNormalization()(x),
        lambda x: L.ReLU()(x),
        lambda x: L.ZeroPadding2D(1)(x),
        lambda x: L.MaxPooling2D(3, 1, padding="same")(x),
        lambda x: L.Conv2DTranspose(5, 3)(x),
        lambda x: keras.ops.relu(x) + 0.5,
        lambda x: L.LayerNormalization()(x),
    ]
    joints = [
        lambda a, b: L.Add()([a, b]),
        lambda a, b: a * b,
        lambda a, b: L.Dense(5)(L.Concatenate()([a, b])),
        lambda a, b: L.Maximum()([a, b]),
    ]
    for _ in range(rng.integers(3, 10)):
        x = tensors[rng.integers(len(tensors))]
        if rng.random() < 0.4:
            alike = [y for y in tensors if y.shape == x.shape]
            tensors.append(joints[rng.integers(len(joints))](x, alike[rng.integers(len(alike))]))
        elif x.shape[1] > 3:
            tensors.append(parts[rng.choice(len(parts), p=[0.2, *[0.085] * 9, 0.035])](x))
    ends = [L.Flatten()(tensors[-1]), L.GlobalAveragePooling2D()(tensors[rng.integers(len(tensors))])]
    return keras.Model(inputs, [L.Dense(2)(end) for end in ends])


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_remove_dead_of_random_graphs(seed):
    model = kill_at_random(randomized(draw_graph(seed), seed), seed)
    dead = find_dead(model)
    smaller = remove_dead(model)
    assert_same(smaller, model)
    for row in dead.layers:
        assert smaller.get_layer(row.path).output.shape[-1] == row.channels - row.leaving
    assert find_dead(smaller).leaving == 0  # nothing is left to do


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: models.Conv4((8, 8, 3), width=0.1), id="conv4"),
        pytest.param(lambda: models.ResNet18((8, 8, 3), width=0.1), marks=pytest.mark.integration, id="resnet18"),
        pytest.param(
            lambda: models.ResNet50((32, 32, 3), 10, width=0.1, stem="imagenet"), marks=pytest.mark.slow, id="resnet50"
        ),
        pytest.param(
            lambda: keras.applications.MobileNetV2((32, 32, 3), 0.35, weights=None, classes=5),
            marks=pytest.mark.slow,
            id="mobilenet_v2",
        ),
        pytest.param(
            lambda: keras.applications.MobileNetV3Small((32, 32, 3), weights=None, classes=5),
            marks=pytest.mark.slow,
            id="mobilenet_v3",
        ),
    ],
)
def test_remove_dead_of_whole_networks(make):
    model = kill_at_random(randomized(make()), 0)
    dead = find_dead(model)
    smaller = remove_dead(model)
    assert_same(smaller, model)
    assert 0 < dead.leaving < dead.channels
    assert smaller.count_params() < model.count_params()


def test_strip_masks_removes_what_is_dead():
    masked = mask_model(models.Conv2((8, 8, 3), width=0.2), k=0.05, seed=1)
    plain, smaller = strip_masks(masked), strip_masks(masked, remove_dead=True)
    assert_same(smaller, plain)
    assert find_dead(masked) == find_dead(plain)
    assert find_dead(plain).leaving > 50
    assert smaller.count_params() < 0.6 * plain.count_params()
    again = strip_masks(plain, remove_dead=True)  # a plain model may have zeros too
    assert [layer.get_config() for layer in again.layers] == [layer.get_config() for layer in smaller.layers]
    with pytest.raises(ValueError, match="Received also: copy=False"):
        strip_masks(masked, copy=False, remove_dead=True)
    assert layers.MASKED_LAYERS[L.Dense] is type(masked.get_layer("dense1"))  # nothing was stripped
