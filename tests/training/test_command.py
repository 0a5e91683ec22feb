"""The command that repeats a run: what it says is read back."""

import shlex

import pytest

from keras_popup import cli
from keras_popup.training import RunConfig, format_command

CONFIGS = [
    RunConfig(),
    RunConfig(model="conv2", dataset="cifar10", data_dir="a folder/it's", epochs=7, learning_rate=0.25, seed=9),
    RunConfig(model="fc", k={"dense*": 0.3, "*": 0.5}, validation=0.0, deterministic=False, scaled=True),
    RunConfig(model="fc", k={"*": 0.7}),
    RunConfig(model="conv4", method="supermask", rescale=True, precision="mixed_bfloat16"),
    RunConfig(model="fc", optimizer="adam", learning_rate=0.001),
    RunConfig(model="conv2", method="supermask", recipe="zhou"),
    RunConfig(model="fc", recipe="tuned"),
    RunConfig(model="resnet8", recipe="tuned", train_norms=False, selector="top_k"),
    RunConfig(model="conv2", method="supermask", recipe="zhou", augment="crop_flip", pixels="-1_to_1"),
    RunConfig(model="fc", method="dense", optimizer="adam"),
    RunConfig(model="fc", selector="multicoat:coats=3", train_norms=True, mask_statistics="history"),
    RunConfig(model="fc", redraw_every=300, redraw_rate=0.2, redraw_from="best"),
    RunConfig(model="fc", k=0.1, k_schedule="cubic", k_schedule_end=0.5, label_smoothing=0.1, warmup_epochs=1.5),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.title())
def test_format_command_is_read_as_the_same_run(config, monkeypatch, tmp_path):
    taken = []

    def train(given, out, **options):
        taken.append((given, out))
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_popup.training.train", train)
    monkeypatch.setattr("keras_popup.cli.train.check_data_dir", lambda path: None)
    command = format_command(config.with_protocol().to_json(), str(tmp_path / "out"))
    program, *arguments = shlex.split(command.replace("\\\n", ""))
    assert program == "keras-popup"
    assert cli.main(arguments) == 130
    (given, out) = taken.pop()
    assert given.with_protocol() == config.with_protocol()
    assert out == str(tmp_path / "out")
    assert all(len(line) <= 110 for line in command.splitlines())


def test_format_command_leaves_out_what_follows():
    assert format_command(RunConfig(model="conv2").with_protocol().to_json(), "out") == (
        "keras-popup train --model conv2 --dataset digits --out out"
    )
