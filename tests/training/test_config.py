"""RunConfig: what it refuses, and what it is equal to."""

import dataclasses

import pytest
from small_runs import SMALL
from tables import SELECTORS

from keras_popup.training import RunConfig, config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "parameter_server"}, "`strategy` must be one of auto, none, mirrored, multiworker"),
        ({"strategy": "multiworker", "devices": "GPU:0"}, "`devices` must be left out for the strategy 'multiworker'"),
        ({"strategy": "none", "devices": "GPU:0"}, "`devices` must be left out for the strategy 'none'"),
        ({"devices": "CPU:0,CPU:0"}, "`devices` must be different devices"),
        ({"devices": "GPU:0,GPU1"}, "`devices` must be names such as GPU:0,GPU:1, which 'GPU1' is not"),
        ({"devices": ""}, "which '' is not"),
        ({"devices": "GPU:0", "jit_compile": "true", "deterministic": False}, "on several devices"),
    ],
)
def test_run_config_refuses_devices_that_do_not_go_together(change, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**change)


OF_BASE = {"base": "b.keras", "model": "base", "width": 1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0.0}, r"`k`, .* must be a number in \(0, 1\]"),
        ({"k": float("nan")}, r"`k`, .* must be a number in \(0, 1\]"),
        ({"k": {"conv*": 1.5}}, r"Layers 'conv\*': `k`, .* must be a number in \(0, 1\]. Received: k=1.5"),
        ({"k": {}}, "`k` must be a number, or a dict"),
        ({"k": {"*": "0.5"}}, "`k` must be a number, or a dict"),
        ({"k": {1: 0.5}}, "`k` must be a number, or a dict"),
        ({"k": "half"}, "`k` must be of type"),
        ({"deterministic": 1}, "`deterministic` must be of type bool"),
        ({"epochs": True}, "`epochs` must be of type"),
        ({"model": "conv5"}, "`model` must be one of fc, conv2"),
        ({"method": "magic"}, "`method` must be one of"),
        ({"epochs": 0}, "`epochs` must be from 1 to 1,000,000"),
        ({"epochs": 10**30}, "`epochs` must be from 1 to 1,000,000"),
        ({"batch_size": -1}, "`batch_size` must be"),
        ({"batch_size": 2**70}, "`batch_size` must be from 1 to 1,000,000"),
        ({"width": 1e9}, "`width` must be a positive number up to 1,000"),
        ({"image_size": 10**7}, "`image_size` must be from 1 to 10,000"),
        ({"learning_rate": 1e30}, "`learning_rate` must be a number from 0 to 1,000,000"),
        ({"l2": float("nan")}, "`l2` must be a number from 0 to 1,000,000"),
        ({"warmup_epochs": 1e9, "epochs": None}, "`warmup_epochs` must be a number from 0 to 1,000,000"),
        ({"learning_rate": -1.0}, "`learning_rate` must be"),
        ({"momentum": 1.0}, "`momentum` must be"),
        ({"precision": "float8"}, "`precision` must be one of"),
        ({"seed": -1}, "`seed` must be"),
        ({"epochs": "3"}, "`epochs` must be of type"),
        ({"optimizer": "adam", "learning_rate": None}, "`optimizer`='adam' has no protocol"),
        ({"validation": 1.0}, "`validation` must be"),
        ({"jit_compile": "true"}, "`jit_compile` must be .* with --nodeterministic"),
        ({"warmup_epochs": 5.0}, "`warmup_epochs` must be less than"),
        ({"method": "supermask", "k": 0.3}, "`k` must be left out: bernoulli learns"),
        ({"selector": "bernoulli", "k": {"conv*": 0.3}}, "`k` must be left out"),
        ({"method": "supermask", "k_schedule": "linear"}, "`k_schedule` must be left out"),
        ({"method": "dense", "k_schedule": "linear"}, "`k_schedule` must be left out"),
        ({"k_schedule": "cubic", "k": {"conv*": 0.3, "*": 0.5}}, "`k_schedule` must be left out"),
        ({"k_schedule": "cubic", "k_schedule_end": 0.0}, r"`k_schedule_end` must be in \(0, 1\]"),
        ({"rescale": True}, "`rescale` must be false"),
        ({"method": "dense", "mask_statistics": "history"}, "`mask_statistics` must be left out"),
        ({"method": "dense", "k": 0.3}, "`k` must be left out for the method 'dense'"),
        ({"method": "dense", "k": {"*": 0.3}}, "`k` must be left out for the method 'dense'"),
        ({"method": "dense", "kernel_initializer": "xavier_normal"}, "`kernel_initializer` must be left out"),
        ({"method": "dense", "scaled": True}, "`scaled` must be left out"),
        ({"method": "random", "learning_rate": 0.5}, "`learning_rate` must be 0"),
        ({"method": "random", "learning_rate": None, "selector": "bernoulli"}, "`selector` must be left out"),
        ({"method": "supermask", "selector": "top_k"}, "`selector` must be left out"),
        ({"method": "dense", "selector": "bernoulli"}, "`selector` must be left out"),
        ({"k_schedule_end": 0.5}, "`k_schedule_end` must be 1 without"),
        ({"redraw_rate": 0.5}, "`redraw_rate` must be 0.1 without redraw_every"),
        ({"redraw_from": "best"}, "`redraw_from` must be 'seed' without redraw_every"),
        ({"redraw_from": "nowhere", "redraw_every": 2}, "`redraw_from` must be"),
        ({"base": "b.keras"}, "`base` must be .* Leave `model` out, or give 'base'"),
        ({"model": "base", "width": 1.0}, "`base` must be the .keras file or folder of a run, for the model 'base'"),
        ({"base": "b.keras", "model": "base"}, "`width` must be left out with a base"),
        ({**OF_BASE, "kernel_initializer": "kaiming_normal"}, "`kernel_initializer` must be left out with a base"),
        ({**OF_BASE, "precision": "mixed_bfloat16"}, "`precision` must be left out with a base"),
        ({**OF_BASE, "optimizer": "sgd", "learning_rate": None}, "`optimizer`='sgd' has no protocol for model='base'"),
        ({"activation": "swish"}, "`activation` must be one of relu, binary"),
        ({**OF_BASE, "activation": "binary"}, "`activation` must be left out with a base"),
        ({"recipe": "best"}, "`recipe` must be one of paper,"),
        ({"recipe": "zhou"}, "The recipe 'zhou' is for supermask of fc, .* Received: .*'edge-popup'. Leave"),
        ({**OF_BASE, "pixels": "0_to_2"}, "`pixels` must be one of 0_to_255, 0_to_1"),
        ({"new_head": True}, "`new_head` must be false without a base"),
        ({**OF_BASE, "new_head": True, "method": "random", "learning_rate": None}, "`new_head` must be left out for"),
        ({"scores_initializer": "magnitude"}, "`scores_initializer` must be left out without a base"),
        ({**OF_BASE, "method": "supermask", "scores_initializer": "magnitude"}, "bernoulli learns"),
    ],
)
def test_run_config_checks_itself(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change).with_protocol()


@pytest.mark.parametrize("method", config.PROTOCOLS["conv4"])
def test_resolved_run_config_has_no_gaps(method):
    run = RunConfig(method=method, from_run="runs/a" if method == "finetune" else None).with_protocol()
    assert all(getattr(run, name) is not None for name in config.ResolvedRunConfig.__annotations__)
    assert run.with_protocol() == run
    with pytest.raises(TypeError, match=r"A ResolvedRunConfig needs epochs\. Use RunConfig.with_protocol"):
        dataclasses.replace(run, epochs=None)


@pytest.mark.parametrize("recipe", config.RECIPES)
def test_recipes_fill_what_is_left_out(recipe):
    for model, protocols in config.RECIPES[recipe].items():
        for method, protocol in protocols.items():
            if model == "base" or method == "finetune":
                continue
            run = RunConfig(recipe=recipe, model=model, method=method).with_protocol()
            expected = dataclasses.asdict(protocol)
            if expected["selector"] is None:
                expected["selector"] = "bernoulli" if method == "supermask" else "top_k"
            if method in ("dense", "random"):
                expected["train_norms"] = None
            assert {name: getattr(run, name) for name in expected} == expected
            given = RunConfig(recipe=recipe, model=model, method=method, batch_size=7).with_protocol()
            assert given == dataclasses.replace(run, batch_size=7)


def test_pixels_of_earlier_runs_were_for_bases_alone():
    recorded = {**RunConfig(model="base", base="b.keras").to_json(), "base_pixels": "0_to_1"}
    del recorded["pixels"]
    assert RunConfig.from_json(recorded).pixels == "0_to_1"


def test_run_config_of_a_base_has_a_protocol_and_a_title():
    run = RunConfig(model="base", base="runs/first/", new_head=True).with_protocol()
    assert (run.optimizer, run.learning_rate, run.l2, run.epochs) == ("adam", 1e-3, 0.0, 20)
    assert run.title() == "on first, digits, k = 0.5"
    run = RunConfig(model="base", base="b.keras", method="supermask").with_protocol()
    assert (run.optimizer, run.learning_rate, run.l2, run.epochs) == ("sgd", 50.0, 0.0, 20)
    assert RunConfig(model="base", base="b.keras", optimizer="adam").with_protocol().learning_rate == 1e-3


def test_run_configs_that_are_equal_have_equal_hashes():
    assert hash(RunConfig(k={"*": 0.3})) == hash(RunConfig(k={"*": 0.3}))
    assert RunConfig(k={"*": 0.3}) != RunConfig(k=0.3)


def test_selectors_of_runs_are_all_there_are():
    """Their names stand in a module that loads no TensorFlow, too."""
    assert sorted(config._SELECTORS) == SELECTORS
