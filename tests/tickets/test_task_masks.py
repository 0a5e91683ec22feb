"""Many tasks over one base: every answer is that of the task's own plain model, whatever else is going on."""

import copy
import gc
import pickle
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from based_tasks import X, assert_equal, network, randomize, task_of
from tables import MODELS
from ticket_checks import disturb

import keras_popup
from keras_popup import TaskMasks, TicketError
from keras_popup.selectors import Bernoulli, MultiCoat

pytestmark = pytest.mark.filterwarnings("ignore:`build.*` was called on layer:UserWarning")

TASKS = {
    "birds": {},
    "cats/dogs": {"k": 0.3, "seed": 2, "scores_initializer": "magnitude"},
    "rescaled": {"selector": Bernoulli(rescale=True), "seed": 3},
    "norms": {"train_norms": True, "train_biases": True, "seed": 4},
    "signed": {"selector": "signed", "k": 0.3, "seed": 5},
    "coats": {"selector": MultiCoat(coats=3), "seed": 6},
    "blocks": {"selector": "block", "seed": 7},
}


@pytest.fixture(scope="module")
def base():
    return randomize(network("classes", 10))


@pytest.fixture(scope="module")
def tickets(base, tmp_path_factory):
    """Paths of tickets by the names of their tasks."""
    folder = tmp_path_factory.mktemp("tickets")
    paths = {}
    for number, (name, arguments) in enumerate(TASKS.items()):
        keras.backend.clear_session()  # layers without a name get the same one in each task
        paths[name] = folder / f"{number}.ticket"
        keras_popup.save_ticket(task_of(base, **arguments), paths[name], base=base, classes=list("abcd"))
    return paths


@pytest.fixture
def tasks(base, tickets):
    made = TaskMasks(base, max_in_use=2)
    for name, path in tickets.items():
        made.add(name, path)
    return made


@pytest.fixture(scope="module")
def answers(base, tickets):
    """The outputs of the plain models that the tickets give."""
    return {name: keras_popup.load_ticket(path, base=base).predict(X, verbose=0) for name, path in tickets.items()}


def assert_answers(tasks, answers):
    assert list(tasks) == list(answers)
    for name, expected in answers.items():
        np.testing.assert_array_equal(tasks[name].predict(X, verbose=0), expected)


def test_tasks_answer_as_their_plain_models(base, tasks, tickets, answers):
    assert_answers(tasks, answers)
    assert len(tasks) == len(TASKS)
    assert "birds" in tasks
    assert "dogs" not in tasks
    assert tasks["birds"] is tasks["birds"]
    assert isinstance(tasks["birds"], keras.Model)
    assert tasks["birds"].output_shape == (None, 4)
    assert tasks["birds"].classes == ("a", "b", "c", "d")
    assert tasks["birds"].input_shape == (None, 8, 8, 3)
    for name, path in tickets.items():
        plain = keras_popup.load_ticket(path, base=base)
        np.testing.assert_array_equal(tasks[name](X[:3]), plain(X[:3]))
        assert_equal(tasks.unpack(name), plain)
    assert f"TaskMasks('base', {len(TASKS)} tasks: birds, cats/dogs" in repr(tasks)


def test_tasks_share_the_network_and_the_memory_of_the_base(base, tasks):
    made = list(tasks._tasks.values())
    assert len({id(task.network) for task in made}) == 1
    assert not any(variable._value is not None for variable in made[0].network.model.weights)
    hidden = made[0].masks["hidden", "0"].kernel
    assert all(task.masks["hidden", "0"].kernel is hidden for task in made)
    memory = base.get_layer("hidden").kernel.value.numpy().__array_interface__["data"][0]
    assert hidden.numpy().__array_interface__["data"][0] == memory
    assert all(mask.bits.shape == (1, -(-int(tf.size(mask.kernel)) // 8)) for mask in made[0].masks.values())


def test_tasks_keep_the_kernels_of_few(tasks, answers):
    for name in (*answers, *answers, "birds"):
        tasks[name].predict(X[:1], verbose=0)
        assert len(tasks._kernels._kept) <= 2
    assert next(reversed(tasks._kernels._kept)) is tasks._tasks["birds"]
    tasks.remove("birds")
    assert len(tasks._kernels._kept) == 1
    assert "birds" not in tasks


def test_tasks_in_threads_do_not_disturb_each_other(tasks, answers):
    wrong = []

    def serve(name):
        for number in range(12):
            batch = slice(number % 3, None)
            found = tasks[name].predict_on_batch(X[batch]) if number % 2 else tasks[name](X[batch]).numpy()
            if not np.allclose(found, answers[name][batch], rtol=1e-5, atol=1e-6):
                wrong.append(name)

    threads = [threading.Thread(target=serve, args=(name,)) for name in (*answers, *answers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_tasks_do_not_change_when_others_are_added_or_the_base_is_trained(tickets, answers):
    base = randomize(network("classes", 10))
    tasks = TaskMasks(base)
    for number, (name, path) in enumerate(tickets.items(), 1):
        tasks.add(name, path)
        assert_answers(tasks, dict(list(answers.items())[:number]))
    base.set_weights([weight + 1 for weight in base.get_weights()])
    assert_answers(tasks, answers)
    with pytest.raises(ValueError, match="was trained after its tasks were added"):
        tasks.save("never.tickets", include_base=True)


def test_tasks_are_evaluated_and_part_of_functions_and_models(tasks, answers):
    model = tasks["birds"]
    labels = answers["birds"].argmax(-1)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    assert model.evaluate(X, labels, batch_size=5, verbose=0)[1] == 1.0
    np.testing.assert_allclose(tf.function(model)(X), answers["birds"], rtol=1e-5, atol=1e-6)
    inputs = keras.Input((8, 8, 3))
    whole = keras.Model(inputs, keras.layers.Softmax()(model(inputs)))
    expected = keras.ops.softmax(answers["birds"])
    np.testing.assert_allclose(whole.predict(X, verbose=0), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(NotImplementedError, match=r"cannot be trained.*load_ticket\(path, masked=True, base=base\)"):
        model.fit(X, labels)
    with pytest.raises(NotImplementedError, match=r"no weights of its own to save.*TaskMasks\.unpack"):
        model.save("never.keras")


@pytest.mark.integration
def test_tasks_have_heads_of_any_size(base, tmp_path):
    tasks = TaskMasks(base)
    for classes in (2, 7):
        model = keras_popup.replace_head(base, classes, seed=classes)
        masked = keras_popup.mask_model(model, 0.5, weights="keep", exclude=model.layers[-1].name, seed=classes)
        disturb(masked)
        keras_popup.save_ticket(masked, tmp_path / "a.ticket", base=base)
        tasks.add(str(classes), tmp_path / "a.ticket")
        expected = keras_popup.strip_masks(masked).predict(X, verbose=0)
        np.testing.assert_array_equal(tasks[str(classes)].predict(X, verbose=0), expected)
        assert tasks[str(classes)].output_shape == (None, classes)
    with pytest.raises(ValueError, match="The tasks '2' and '7' have different networks"):
        tasks.infer(X)


@pytest.mark.integration
@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_tasks_of_every_model(case, tmp_path):
    base = case.make()
    tasks, expected, inputs = TaskMasks(base), {}, case.inputs(base)
    given = inputs if len(inputs) > 1 else inputs[0]
    for seed in (1, 2):
        masked = keras_popup.mask_model(base, k=0.5, seed=seed, weights="keep")
        disturb(masked, seed=seed)
        path = tmp_path / f"{seed}.ticket"
        keras_popup.save_ticket(masked, path, base=base)
        tasks.add(str(seed), path)
        expected[str(seed)] = keras_popup.load_ticket(path, base=base)(given)
    tasks.save(tmp_path / "all.tickets")
    again = TaskMasks.load(tmp_path / "all.tickets", base)
    for name, outputs in expected.items():
        for each in (tasks, again):
            keras.tree.map_structure(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), each[name](given), outputs
            )


@pytest.mark.integration
def test_tasks_over_a_random_network(tmp_path):
    """Masks of SupSup: the kernels come from the seed, in the tickets and in the base."""
    model = keras_popup.models.FullyConnected((8, 8, 3), classes=4, width=0.1)
    base = keras_popup.strip_masks(keras_popup.mask_model(model, k=1.0, seed=1))
    tasks = TaskMasks(base)
    for seed in (1, 2):
        masked = keras_popup.mask_model(model, k=0.4, seed=1)
        disturb(masked, seed=seed)
        keras_popup.save_ticket(masked, tmp_path / "a.ticket")
        tasks.add(str(seed), tmp_path / "a.ticket")
        np.testing.assert_array_equal(tasks[str(seed)](X), keras_popup.strip_masks(masked)(X))
    other = keras_popup.mask_model(model, k=0.4, seed=2)
    keras_popup.save_ticket(other, tmp_path / "a.ticket")
    with pytest.raises(
        TicketError, match="the kernel of layer 'dense1' is drawn from a seed, and the base .* has other weights"
    ):
        tasks.add("other", tmp_path / "a.ticket")
    assert list(tasks) == ["1", "2"]


@pytest.mark.integration
def test_tasks_keep_what_layers_compute_of_their_weights(tmp_path):
    """A Normalization makes arrays of its statistics when it is loaded. A network may not mix up those of two tasks."""
    base = keras.Sequential([keras.Input((6,)), keras.layers.Dense(30, name="hidden"), keras.layers.Dense(4)])
    tasks, expected, x = TaskMasks(base), {}, np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    for name, mean in (("one", 0.0), ("two", 1.0), ("three", 1.0)):
        normalization = keras.layers.Normalization(name="normalization")
        normalization.adapt(x + mean)
        masked = keras_popup.mask_model(base, k=0.5, weights="keep", seed=1)
        path = tmp_path / f"{name}.ticket"
        keras_popup.save_ticket(masked, path, base=base, preprocess=[normalization])
        tasks.add(name, path)
        expected[name] = keras_popup.load_ticket(path, base=base)(x)
    for name, outputs in expected.items():
        np.testing.assert_array_equal(tasks[name](x), outputs)
    assert tasks._tasks["two"].network is tasks._tasks["three"].network is not tasks._tasks["one"].network


def test_infer_scores_are_the_derivatives_of_the_entropy(tasks, answers):
    """The rule as the paper writes it: all kernels at once, and the gradient by alpha."""
    made = list(tasks._tasks.values())
    weights = [tasks._kernels.read(task) for task in made]
    alpha = tf.fill([len(made)], 1 / len(made))
    with tf.GradientTape() as tape:
        tape.watch(alpha)
        mixed = [tf.tensordot(alpha, tf.stack(each), 1) for each in zip(*weights, strict=True)]
        outputs = tf.nn.log_softmax(made[0].network.run(mixed, tf.constant(X)))
        entropy = tf.reduce_mean(-tf.reduce_sum(tf.exp(outputs) * outputs, -1))
    expected = -tape.gradient(entropy, alpha).numpy()
    scores = list(tasks.score_tasks(X, rule="gradient").values())
    # Weights that all tasks have add the same to each score, and are left out.
    np.testing.assert_allclose(np.diff(scores), np.diff(expected), rtol=1e-3, atol=1e-4)
    assert tasks.infer(X, rule="gradient") == list(answers)[int(np.argmax(expected))]


def test_infer_halves_the_tasks(tasks):
    for name in list(tasks)[4:]:
        tasks.remove(name)
    first = tasks.score_tasks(X, rule="gradient")
    better = sorted(first, key=first.get)[2:]
    scores = tasks.score_tasks(X, rule="halving")
    assert sorted(scores.values()) == [0.0, 0.0, 1.0, 2.0]
    assert {name for name, score in scores.items() if score} == {*better}
    for name in set(tasks) - {*better}:
        tasks.remove(name)
    assert tasks.infer(X, rule="halving") == tasks.infer(X) == max(scores, key=scores.get)


def test_infer_asks_each_task(tasks, answers):
    def entropy(outputs):
        outputs = tf.nn.log_softmax(outputs)
        return float(tf.reduce_mean(-tf.reduce_sum(tf.exp(outputs) * outputs, -1)))

    scores = tasks.score_tasks(X, rule="each")
    np.testing.assert_allclose(list(scores.values()), [-entropy(each) for each in answers.values()], rtol=1e-5)
    assert tasks.infer(X, rule="each") == max(scores, key=scores.get)
    with pytest.raises(ValueError, match="`rule` must be one of gradient, halving, each. Received: 'all'"):
        tasks.infer(X, rule="all")
    with pytest.raises(ValueError, match="There are no tasks yet"):
        TaskMasks(network()).infer(X)


def test_add_refuses_what_is_no_task_of_the_base(base, tasks, tickets, answers, tmp_path):
    with pytest.raises(ValueError, match="There is a task 'birds' already"):
        tasks.add("birds", tickets["birds"])
    for name in ("", "a\nb", 3):
        with pytest.raises(ValueError, match="The name of a task must be a text"):
            tasks.add(name, tickets["birds"])
    with pytest.raises(FileNotFoundError):
        tasks.add("new", tmp_path / "nowhere.ticket")
    with pytest.raises(KeyError, match="There is no task 'new'. There are: birds"):
        tasks["new"]
    assert tasks.get("new") is None
    path = tmp_path / "a.ticket"
    keras_popup.save_ticket(task_of(base), path)
    with pytest.raises(
        TicketError, match="the kernel of layer 'conv' is stored in it.*weights='keep'.*leave a new head out"
    ):
        tasks.add("new", path)
    other = randomize(network("classes", 10), seed=9)
    keras_popup.save_ticket(task_of(other), path, base=other)
    with pytest.raises(TicketError, match="the base 'base' is not the one.*the kernel of layer 'conv'"):
        tasks.add("new", path)
    path.write_bytes(tickets["birds"].read_bytes()[:-5])
    with pytest.raises(TicketError, match="cut off"):
        tasks.add("new", path)
    with pytest.raises(ValueError, match="`max_in_use` must be a positive integer"):
        TaskMasks(base, max_in_use=0)
    with pytest.raises(ValueError, match="has masks"):
        TaskMasks(task_of(base))
    assert_answers(tasks, answers)


def test_tasks_that_are_traced_first_are_kept_as_values(tasks, answers):
    """What a function computes while it is traced is no value."""
    traced = tf.function(lambda x: tasks["birds"](x))
    np.testing.assert_allclose(traced(X), answers["birds"], rtol=1e-5, atol=1e-6)
    mapped = tf.data.Dataset.from_tensors(X).map(lambda x: tasks["norms"](x))
    np.testing.assert_allclose(next(iter(mapped)), answers["norms"], rtol=1e-5, atol=1e-6)
    for name in ("birds", "norms"):
        np.testing.assert_array_equal(tasks[name].predict(X, verbose=0), answers[name])


@pytest.mark.parametrize("policy", ["mixed_bfloat16", pytest.param("float16", marks=pytest.mark.integration)])
def test_tasks_do_not_depend_on_the_policy_of_the_moment(base, tickets, answers, policy):
    keras.config.set_dtype_policy(policy)
    tasks = TaskMasks(base)
    tasks.add("birds", tickets["birds"])
    np.testing.assert_array_equal(tasks["birds"].predict(X, verbose=0), answers["birds"])


def test_tasks_refuse_inputs_of_other_shapes(tasks):
    for wrong in (X[:, :5], X[..., :2], X[0]):
        for use in (tasks["birds"], lambda x: tasks["birds"].predict(x, verbose=0)):
            with pytest.raises(ValueError, match="of layer .birds. is incompatible with the layer"):
                use(wrong)


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
def test_tasks_keep_masks_of_inputs_and_outputs(tmp_path):
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(9, 16, mask_zero=True, name="table")(inputs)
    x = keras.layers.LSTM(8, return_sequences=True, name="cells")(x)
    base = keras.Model(inputs, keras.layers.Dense(5, name="classes")(x))
    masked = keras_popup.mask_model(base, k=0.5, weights="keep", seed=1)
    keras_popup.save_ticket(masked, tmp_path / "a.ticket", base=base)
    plain = keras_popup.load_ticket(tmp_path / "a.ticket", base=base)
    tasks = TaskMasks(base)
    tasks.add("a", tmp_path / "a.ticket")
    tokens, labels = np.array([[1, 2, 0, 0], [3, 4, 5, 0]]), np.array([[0, 1, 0, 0], [1, 2, 3, 0]])
    losses = []
    for model in (tasks["a"], plain):
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        losses.append(model.evaluate(tokens, labels, verbose=0))
    np.testing.assert_allclose(*losses, rtol=1e-6)

    start = keras.Input((3, 6))
    recurrent = keras.Model(start, keras.layers.Dense(4)(keras.layers.LSTM(8)(start)))
    masked = keras_popup.mask_model(recurrent, k=0.5, weights="keep", seed=1)
    keras_popup.save_ticket(masked, tmp_path / "b.ticket", base=recurrent)
    tasks = TaskMasks(recurrent)
    tasks.add("b", tmp_path / "b.ticket")
    values = np.random.default_rng(0).normal(size=(2, 3, 6)).astype("float32")
    given = np.array([[True, False, True], [True, True, True]])
    plain = keras_popup.load_ticket(tmp_path / "b.ticket", base=recurrent)
    np.testing.assert_allclose(tasks["b"](values, mask=given), plain(values, mask=given), rtol=1e-5, atol=1e-6)
    assert np.any(tasks["b"](values, mask=given).numpy() != tasks["b"](values).numpy())


def test_tasks_share_a_network_only_if_all_that_matters_is_the_same(tmp_path):
    """Of layers of your own, every argument matters, and so does the class that a name stands for."""

    def define(factor):
        @keras.saving.register_keras_serializable("shares")
        class Scaled(keras.layers.Layer):
            def __init__(self, offset_initializer=0.0, **arguments):
                super().__init__(**arguments)
                self.offset_initializer = offset_initializer

            def call(self, x):
                return factor * x + self.offset_initializer

            def get_config(self):
                return {**super().get_config(), "offset_initializer": self.offset_initializer}

        return Scaled

    inputs, x = keras.Input((8,), name="inputs"), np.ones((2, 8), "float32")
    hidden = keras.layers.Dense(32, name="hidden")
    base = keras.Model(inputs, keras.layers.Dense(5, name="classes")(hidden(inputs)))
    tasks, path = TaskMasks(base), tmp_path / "a.ticket"
    for name, factor, offset in (("one", 2.0, 0.0), ("two", 2.0, 5.0), ("three", 3.0, 5.0), ("again", 3.0, 5.0)):
        if name != "again":
            kind = define(factor)
        outputs = keras.layers.Dense(3, name="classes")(kind(offset, name="scaled")(hidden(inputs)))
        masked = keras_popup.mask_model(
            keras.Model(inputs, outputs), k=0.5, weights="keep", exclude="classes", seed=len(tasks)
        )
        keras_popup.save_ticket(masked, path, base=base)
        tasks.add(name, path)
        np.testing.assert_array_equal(tasks[name](x), keras_popup.load_ticket(path, base=base)(x))
    networks = [id(tasks._tasks[name].network) for name in tasks]
    assert len({*networks[:3]}) == 3
    assert networks[2] == networks[3]


def test_tasks_guard_what_they_cannot_do(base, tasks, tmp_path):
    model = tasks["birds"]
    (tmp_path / "mine.keras").write_text("mine")
    for use in (
        lambda: model.save(tmp_path / "mine.keras"),
        lambda: model.save_weights(tmp_path / "a.weights.h5"),
        lambda: model.export(tmp_path / "a"),
        lambda: model.quantize("int8"),
    ):
        with pytest.raises(NotImplementedError, match=r"no weights of its own.*TaskMasks\.unpack"):
            use()
    with pytest.raises(NotImplementedError, match="cannot be trained"):
        model.train_on_batch(X, X)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    for use in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="TaskMasks cannot be copied or pickled"):
            use(tasks)
    for other in (model, keras.Sequential([keras.layers.Dense(3)])):
        with pytest.raises(ValueError, match="has no weights. Build it first"):
            TaskMasks(other)
    (tmp_path / "a.keras").write_bytes(b"PK no file of Keras's")
    with pytest.raises(ValueError, match=r"must be a \.keras file. '.*a\.keras' is none, or is damaged"):
        TaskMasks(tmp_path / "a.keras")
    with pytest.raises(ValueError, match="the batch is empty"):
        tasks.infer(X[:0])
    tasks.remove("birds")
    model(X)
    assert not any(task.model is model for task in tasks._kernels._kept)


@pytest.mark.integration
def test_tasks_of_your_own_layers(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Doubled(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    base = keras.Sequential([keras.Input((6,)), keras.layers.Dense(30), Doubled(), keras.layers.Dense(4)])
    masked = keras_popup.mask_model(base, k=0.5, weights="keep", seed=1)
    path = tmp_path / "a.ticket"
    keras_popup.save_ticket(masked, path, base=base)
    x = np.ones((2, 6), "float32")
    tasks = TaskMasks(base)
    tasks.add("one", path, custom_objects={"Doubled": Doubled})
    np.testing.assert_array_equal(tasks["one"](x), keras_popup.strip_masks(masked)(x))
    tasks.save(tmp_path / "a.tickets")
    again = TaskMasks.load(tmp_path / "a.tickets", base, custom_objects={"Doubled": Doubled})
    np.testing.assert_array_equal(again["one"](x), tasks["one"](x))


@pytest.mark.integration
def test_tasks_take_little_memory(base, tickets):
    """A hundred tasks: their masks, and no hundred networks."""
    tasks = TaskMasks(base, max_in_use=1)
    tasks.add("first", tickets["birds"])
    gc.collect()
    before = len(gc.get_objects())
    for number in range(20):
        tasks.add(str(number), tickets["birds"])
    gc.collect()
    network_objects = 21 * 150  # what a Keras model and a ticket's records are made of; a network has thousands
    assert len(gc.get_objects()) - before < network_objects * 3


@pytest.mark.integration
def test_tasks_of_code_that_runs_in_python_only(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Counted(keras.layers.Layer):
        def call(self, x):
            return x * float(x[0, 0])  # a number, which no function that is traced has

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape)

    base = keras.Sequential([keras.Input((6,)), keras.layers.Dense(30), Counted(), keras.layers.Dense(4)])
    masked = keras_popup.mask_model(base, k=0.5, weights="keep", seed=1)
    keras_popup.save_ticket(masked, tmp_path / "a.ticket", base=base)
    tasks, x = TaskMasks(base), np.ones((2, 6), "float32")
    tasks.add("one", tmp_path / "a.ticket")
    expected = keras_popup.strip_masks(masked)(x)
    np.testing.assert_array_equal(tasks["one"](x), expected)
    np.testing.assert_array_equal(tasks["one"].predict(x, verbose=0), expected)
