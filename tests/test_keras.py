"""What this library relies on in Keras and Keras does not promise: each name of keras_popup/_keras.py."""

import threading

import keras
import numpy as np
import pytest

from keras_popup import _keras


@pytest.fixture
def dense():
    layer = keras.layers.Dense(3)
    layer.build((None, 4))
    return layer


def test_unlocked_layer_takes_new_variables(dense):
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        dense.other = keras.Variable(1.0)
    with _keras.unlocked(dense):
        dense.other = keras.Variable(1.0)
    assert any(v is dense.other for v in dense.variables)
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        dense.more = keras.Variable(1.0)


def test_track_and_untrack_move_variables(dense):
    kernel, bias = dense.variables
    with _keras.unlocked(dense):
        _keras.track(dense, _keras.NON_TRAINABLE, bias)
    kernel.trainable = bias.trainable = False
    dense.trainable = False
    dense.trainable = True
    assert [v.trainable for v in (kernel, bias)] == [True, False]
    assert dense.variables[1] is bias
    assert _keras.untrack(dense, bias) == (_keras.NON_TRAINABLE, 0)
    assert _keras.untrack(dense, bias) is None
    assert dense.variables[0] is kernel
    assert len(dense.variables) == 1


def test_set_trainable_works_where_keras_does_nothing(dense):
    dense.trainable = False
    dense.bias.trainable = True
    dense.trainable = False
    assert dense.bias.trainable  # why `set_trainable` is needed
    _keras.set_trainable(dense, False)
    assert not dense.bias.trainable


def test_exchange_sublayer():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

    block, other = Block(), keras.layers.Dense(2)
    before = block.dense
    _keras.exchange_sublayer(block, before, other)
    assert block._layers == [other]


def test_refresh_call_signature(dense):
    class Other(keras.layers.Dense):
        def call(self, inputs, mask=None):
            return inputs

    assert dense._call_has_training_arg
    dense.__class__ = Other
    _keras.refresh_call_signature(dense)
    assert not dense._call_has_training_arg
    assert dense._call_has_mask_arg
    np.testing.assert_array_equal(dense(np.ones((1, 4))), np.ones((1, 4)))


def test_call_context_and_autocast_dtype_inside_of_calls():
    seen = []

    class Looks(keras.layers.Layer):
        def call(self, x, training=None):
            seen.append((_keras.call_context().get_value("training"), _keras.autocast_dtype()))
            return x

    assert _keras.call_context() is None
    Looks(dtype="mixed_bfloat16")(np.ones((1, 2), "float32"), training=True)
    Looks()(np.ones((1, 2), "float32"))
    assert seen == [(True, "bfloat16"), (None, None)]


def test_drop_compiled_functions_asks_for_another_compile():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    _keras.drop_compiled_functions(model)
    assert model.compiled  # nothing was built yet
    model.fit(np.ones((2, 4)), np.ones((2, 2)), verbose=0)
    _keras.drop_compiled_functions(model)
    assert not model.compiled
    assert model.train_function is None


def test_deferred_variables_leave_other_threads_alone(tmp_path):
    import keras_popup

    inputs = keras.Input((4,))
    normalization = keras.layers.Normalization()
    normalization.adapt(np.arange(12.0).reshape(3, 4))
    masked = keras_popup.mask_model(keras.Model(inputs, keras.layers.Dense(3)(normalization(inputs))), seed=1)
    keras_popup.save_ticket(masked, tmp_path / "x.ticket")
    failed, done = [], threading.Event()

    def build():
        while not done.is_set():
            try:
                keras.layers.Normalization().build((None, 1000))
            except Exception as error:
                failed.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    try:
        for _ in range(5):
            with pytest.raises(keras_popup.TicketError, match="max_bytes=10"):
                keras_popup.load_ticket(tmp_path / "x.ticket", max_bytes=10)
            plain = keras_popup.load_ticket(tmp_path / "x.ticket")
    finally:
        done.set()
        thread.join()
    assert not failed
    assert type(plain.layers[1]) is keras.layers.Normalization


def test_deferred_variables_take_no_memory():
    with _keras.deferred_variables() as pending:
        with keras.StatelessScope(initialize_variables=False):
            model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        assert [tuple(variable.shape) for variable in pending] == [(3, 2), (2,)]
        assert all(variable._value is None for variable in pending)
        _keras.initialize(pending[0], keras.initializers.Constant(7.0))
        _keras.initialize(pending[1])
    assert np.array_equal(model.weights[0], np.full((3, 2), 7.0))
    assert np.array_equal(model.weights[1], np.zeros(2))


def test_layer_state_restores_class_attributes_and_lists(dense):
    state = _keras.LayerState(dense, values=True)
    kernel, bias = dense.variables
    values = kernel.numpy()
    with _keras.unlocked(dense):
        _keras.track(dense, _keras.NON_TRAINABLE, bias)
    kernel.assign(values + 1)
    assert _keras.set_autocast(kernel, False)
    dense.__class__, dense.units, dense.other = keras.layers.Layer, 7, "other"
    state.restore()
    assert type(dense) is keras.layers.Dense
    assert (dense.units, hasattr(dense, "other")) == (3, False)
    assert dense.trainable_variables == [kernel, bias]
    assert _keras.set_autocast(kernel, True)
    np.testing.assert_array_equal(kernel, values)


def test_set_autocast_decides_the_type_that_a_call_reads():
    class Reads(keras.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(), name="scale")

        def call(self, x):
            seen.append(self.scale.value.dtype.name)
            return x

    seen = []
    layer = Reads(dtype="mixed_bfloat16")
    layer(np.ones((1, 2), "float32"))
    _keras.set_autocast(layer.scale, False)
    layer(np.ones((1, 2), "float32"))
    assert seen == ["bfloat16", "float32"]


def test_list_seed_states_and_sublayers():
    dropout = keras.layers.Dropout(0.5)
    (state,) = _keras.list_seed_states(dropout)
    assert state.shape == (2,)
    model = keras.Sequential([keras.Input((2,)), dropout])
    assert dropout in _keras.list_sublayers(model)


def test_copy_flags_of_a_frozen_layer_in_a_remat_scope(dense):
    with keras.RematScope("full"):
        layer = keras.layers.Dense(3)
    layer.trainable = False
    assert not _keras.is_rematerialized(dense)
    _keras.copy_flags(layer, dense)
    assert _keras.is_rematerialized(dense)
    assert not dense.trainable


def test_list_arguments_and_find_operation_in_a_functional_model():
    inputs = keras.Input((4,))
    table = keras.Variable(np.ones((4,), "float32"))
    outputs = keras.ops.multiply(inputs, table)
    model = keras.Model(inputs, outputs)
    assert _keras.find_operation(outputs) in model.operations
    assert any(value is table for value in _keras.list_arguments(model))


def test_find_inputs_of_the_call_that_gave_a_tensor():
    inputs, dense = keras.Input((4,)), keras.layers.Dense(4)
    first = dense(inputs)
    assert _keras.find_inputs(first)[0] is inputs
    assert _keras.find_inputs(dense(first))[0] is first
    assert _keras.find_inputs(inputs) == []


def test_without_training_for_layers_that_take_it():
    assert _keras.without_training(keras.layers.Dropout(0.5)) == {"training": False}
    assert _keras.without_training(keras.layers.Flatten()) == {}


def test_pack_inputs_in_the_structure_of_a_model():
    inputs = {name: keras.Input((2,), name=name) for name in ("a", "b")}
    model = keras.Model(inputs, keras.layers.Add()(list(inputs.values())))
    assert _keras.pack_inputs(model, [1, 2]) == {"a": 1, "b": 2}
    assert _keras.pack_inputs(keras.Sequential([keras.layers.Dense(2)]), [1]) == 1


def test_build_metrics_creates_their_variables():
    import tensorflow as tf

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse", metrics=["mae"])
    with pytest.raises(ValueError, match="not yet been built"):
        model.get_metrics_result()
    _keras.build_metrics(model, (tf.TensorSpec((8, 4)), tf.TensorSpec((8, 2))))
    assert set(model.get_metrics_result()) == {"loss", "mae"}


def test_gradients_of_custom_operations_are_registered_for_ever():
    import tensorflow as tf

    @tf.custom_gradient
    def double(x):
        return 2 * x, lambda upstream: 2 * upstream

    before = set(_keras.GRADIENTS)
    function = tf.function(double).get_concrete_function(tf.TensorSpec([]))
    (name,) = set(_keras.GRADIENTS) - before
    assert _keras.find_graph_of_gradient(_keras.GRADIENTS[name]["type"]) is function.graph
    assert _keras.find_graph_of_gradient(len) is None
    assert _keras.find_graph_of_gradient(_keras.GRADIENTS["MatMul"]["type"]) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("shape", [(100,), ()])
def test_read_memory_has_another_address_after_a_write(shape, dtype):
    variable = keras.Variable(np.ones(shape), dtype=dtype)
    value, address = _keras.read_memory(variable)
    assert _keras.read_memory(variable)[1] == address
    variable.assign(np.zeros(shape))
    assert _keras.read_memory(variable)[1] != address
    assert np.all(keras.ops.convert_to_numpy(keras.ops.cast(value, "float32")) == 1)


def test_read_at_each_call_in_the_functions_of_predict_and_generate_only():
    import tensorflow as tf

    values, read = [1.0], []

    def one_step_on_data_distributed(x):
        def body(i, total):
            value = _keras.read_at_each_call(
                lambda: read.append(1) or tf.constant(values[0]), tf.TensorSpec([], "float32"), "key"
            )
            return i + 1, total + value

        return tf.while_loop(lambda i, _: i < 3, body, (0, x))[1]

    function = tf.function(one_step_on_data_distributed)
    assert float(function(tf.constant(0.0))) == 3
    values[0] = 2.0
    assert float(function(tf.constant(0.0))) == 6

    @tf.function
    def other():
        assert _keras.read_at_each_call(lambda: None, tf.TensorSpec([]), "key") is None

    other()
    assert _keras.read_at_each_call(lambda: None, tf.TensorSpec([]), "key") is None
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.predict(np.ones((1, 2)), verbose=0)
    assert model.predict_function.python_function.__name__ in _keras._INFERENCE_FUNCTIONS


def test_is_recorded_and_is_stateless():
    import tensorflow as tf

    assert not _keras.is_recorded()
    with tf.GradientTape():
        assert _keras.is_recorded()
    assert not _keras.is_stateless()
    with keras.StatelessScope():
        assert _keras.is_stateless()


def test_list_calls_in_order_with_their_arguments():
    inputs, dense = keras.Input((4,)), keras.layers.Dense(4)
    x = dense(inputs)
    y = keras.layers.Add()([dense(x), x * 2.0])
    model = keras.Model(inputs, y)
    calls = _keras.list_calls(model)
    assert [type(call.operation).__name__ for call in calls][::3] == ["Dense", "Add"]
    assert calls[0].operation is dense
    assert calls[0].inputs[0] is model.inputs[0]
    known = {id(inputs)}
    for call in calls:
        assert {id(tensor) for tensor in call.inputs} <= known
        known |= {id(tensor) for tensor in call.outputs}
    assert id(model.outputs[0]) in known
    (times,) = [call for call in calls if type(call.operation) is _keras.MULTIPLY]
    assert times.args[0] is x
    assert times.args[1] == 2.0
    assert times.kwargs == {}
    assert type(times.operation) in _keras.ELEMENTWISE_OPERATIONS
    chain = keras.Sequential([keras.Input((4,)), dense])
    assert [call.operation for call in _keras.list_calls(chain)] == [dense]


def test_run_graph_with_other_layers():
    inputs, dense = keras.Input((4,)), keras.layers.Dense(4)
    model, other = keras.Model(inputs, dense(inputs)), keras.layers.Dense(2)
    new = keras.Input((4,))
    outputs = _keras.run_graph(model, [new], lambda operation: other if operation is dense else operation)
    assert outputs.shape == (None, 2)
