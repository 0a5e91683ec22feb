"""KerasHub and keras.applications: masked, trained, saved, stripped, packed; `hub_checks.py` prints a table of them."""

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hub_models
import keras
import numpy as np
import pytest
from hub_checks import KERAS_CANNOT, OK, assert_close, check, in_new_process, masked_layers, outputs, randomise

import keras_popup

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what KerasHub imports
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # it leaves vocabularies open
    pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning"),  # of an unused pooler
    pytest.mark.filterwarnings(r"ignore:`build\(\)` was called on layer:UserWarning"),  # of Flux's blocks
    pytest.mark.filterwarnings(r"ignore:`compile\(\)` was not called:UserWarning"),  # a task saved by Keras
]


def _parameters(names: Any) -> list:
    return [pytest.param(name, marks=() if name in hub_models.QUICK else pytest.mark.rare) for name in names]


@pytest.mark.parametrize("name", _parameters(hub_models.BACKBONES | hub_models.APPLICATIONS | hub_models.TASKS))
def test_hub_model(name):
    model, x = hub_models.ALL[name]()
    record = check(model, x, new_process=name in ("GPT2Backbone", "SwinTransformerBackbone"))
    assert set(record.values()) <= {OK, KERAS_CANNOT}, record


@pytest.mark.rare
@pytest.mark.parametrize(
    "name", [name for name in hub_models.ALL if name != "Llama3Backbone-tied"]
)  # no copy has its ties
def test_hub_model_is_a_base_of_tasks(name, tmp_path):
    base, x = hub_models.ALL[name]()
    randomise(base.variables, 1)
    tasks = keras_popup.TaskMasks(base, max_in_use=1)
    for seed in (1, 2):
        model, _ = hub_models.ALL[name]()  # masked in place: Keras cannot copy all of them
        randomise(model.variables, 1)
        masked = keras_popup.mask_model(model, weights="keep", k=0.6, seed=seed, copy=False)
        rng = np.random.default_rng(seed)
        for layer in keras_popup.masked_layers(masked):
            for kernel in layer.masked_kernels.values():
                kernel.scores.assign_add(0.02 * rng.normal(size=kernel.scores.shape))
        file = tmp_path / f"{seed}.ticket"
        keras_popup.save_ticket(masked, file, base=base, preprocess=[])
        tasks.add(str(seed), file, trust=("keras_hub",))
        plain = keras_popup.load_ticket(file, base=base, trust=("keras_hub",))
        assert_close(
            [np.asarray(y) for y in keras.tree.flatten(tasks[str(seed)](x)) if y is not None], outputs(plain, x)
        )


@pytest.mark.rare
def test_hub_backbones_are_all_in_the_table():
    import keras_hub

    known = {name.partition("-")[0] for name in hub_models.BACKBONES} | {*hub_models.ALIASES, *hub_models.BASES}
    assert known == {name for name in dir(keras_hub.models) if name.endswith("Backbone")}
    for alias, name in hub_models.ALIASES.items():
        assert getattr(keras_hub.models, alias) is getattr(keras_hub.models, name)


# --- Tasks: text in, text out, presets ---


def _fitted(name: str) -> tuple[Any, Any]:
    """A masked task after an epoch, and inputs."""
    task, x = hub_models.TASKS[name]()
    randomise(task.variables, 1)
    masked = keras_popup.mask_model(task, weights="keep", k=0.6, seed=1)
    masked.compile(optimizer=keras.optimizers.SGD(0.1))  # the loss is the task's own
    scores = [np.array(variable) for variable in masked.trainable_variables]
    masked.fit(*hub_models.DATA[name], batch_size=2, verbose=0)
    assert any((np.array(a) != b).any() for a, b in zip(masked.trainable_variables, scores, strict=True))
    return masked, x


def _tasks(*quick: str, names: Any = tuple(hub_models.TASKS)) -> list:
    return [pytest.param(name, marks=() if name in quick else pytest.mark.rare) for name in names]


@pytest.mark.parametrize("name", _tasks())
def test_hub_task(name, tmp_path):
    masked, x = _fitted(name)
    expected = outputs(masked, x)
    stripped = keras_popup.strip_masks(masked)
    assert_close(outputs(stripped, x), expected)
    masked.save(tmp_path / "task.keras")
    loaded = keras.models.load_model(tmp_path / "task.keras")
    assert_close(outputs(loaded, x), expected)
    if name == "BertMaskedLM":
        return  # its preprocessor draws what it masks
    raw = hub_models.DATA[name][0]
    predicted = masked.predict(raw, verbose=0)  # strings, where the task takes strings
    for other in (stripped, loaded):
        assert_close([other.predict(raw, verbose=0)], [predicted])


CAUSAL = tuple(name for name in hub_models.TASKS if name.endswith("CausalLM"))


@pytest.mark.parametrize("name", _tasks(names=CAUSAL))
def test_hub_generation(name):
    prompts = ["the quick", "a dog"]
    task, x = hub_models.TASKS[name]()
    randomise(task.variables, 1)
    masked = keras_popup.mask_model(task, weights="keep", k=0.6, seed=1)
    for step in range(2):
        if step:  # what `generate` has compiled sees the new masks
            masked.compile(optimizer=keras.optimizers.SGD(1.0), sampler="greedy")
            masked.fit(*hub_models.DATA[name], batch_size=2, verbose=0)
        masked.compile(sampler="greedy")
        text = masked.generate(prompts, max_length=10)
        stripped = keras_popup.strip_masks(masked)
        stripped.compile(sampler="greedy")
        assert stripped.generate(prompts, max_length=10) == text
        assert_close(outputs(stripped, x), outputs(masked, x))
    whole = keras_popup.mask_model(task, weights="keep", k=1.0, seed=1)
    for each in (task, whole):
        each.compile(sampler="greedy")
    assert whole.generate(prompts, max_length=10) == task.generate(prompts, max_length=10)


FROM_PRESET = """
import pickle, sys
import keras, numpy as np
import keras_hub
with open(sys.argv[3], "rb") as file:
    x = pickle.load(file)
model = getattr(keras_hub.models, sys.argv[1]).from_preset(sys.argv[2])
assert "keras_popup" not in sys.modules
outputs = [np.asarray(each) for each in keras.tree.flatten(model(x, training=False)) if each is not None]
with open(sys.argv[4], "wb") as file:
    pickle.dump(outputs, file)
"""


@pytest.mark.parametrize("name", _tasks(names=("BertTextClassifier", "GPT2CausalLM", "ResNetImageClassifier")))
def test_hub_preset(name, tmp_path):
    """A stripped task is a preset that loads without keras_popup, and a local preset can be masked."""
    import keras_hub

    masked, x = _fitted(name)
    stripped = keras_popup.strip_masks(masked)
    expected = outputs(stripped, x)
    assert_close(expected, outputs(masked, x))
    stripped.save_to_preset(tmp_path / "preset")
    received = in_new_process(FROM_PRESET, name, tmp_path / "preset", x=x, folder=tmp_path)
    assert_close(received, expected)
    task = getattr(keras_hub.models, name).from_preset(str(tmp_path / "preset"))
    again = keras_popup.mask_model(task, weights="keep", k=1.0, seed=3)
    assert masked_layers(again)
    assert_close(outputs(again, x), expected)


@pytest.mark.rare
@pytest.mark.parametrize("name", ["BertBackbone", "GemmaBackbone-2", "ViTBackbone"])
def test_hub_preset_of_a_backbone(name, tmp_path):
    model, x = hub_models.BACKBONES[name]()
    masked = keras_popup.mask_model(model, k=0.6, seed=1)
    expected = outputs(masked, x)
    keras_popup.strip_masks(masked).save_to_preset(tmp_path / "preset")
    kind = name.partition("-")[0]
    received = in_new_process(FROM_PRESET, kind, tmp_path / "preset", x=x, folder=tmp_path)
    assert_close(received, expected)
