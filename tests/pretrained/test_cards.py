"""The cards of the networks in the package, each against its ticket."""

import shlex
from pathlib import Path

import numpy as np
import pytest

import keras_popup
from keras_popup import cli, datasets, pretrained

NAMES = pretrained.list_networks()
ROOT = Path(__file__).parent.parent.parent
SUBSETS = ROOT / "tests" / "support" / "images"
MOST_BYTES = 1_000_000  # of all of them together


def read_images(card):
    """Returns test images of a card's data and their labels: all where no download is needed, else some."""
    if card.dataset == "digits":
        batches = list(datasets.load("digits").evaluation_batches("test", 1000))
        images, labels = (np.concatenate([batch[part] for batch in batches]) for part in (0, 1))
        return images, labels.argmax(-1)
    content = np.load(SUBSETS / f"{card.dataset}.npz")
    return content["images"], content["labels"]


def test_list_networks_is_not_empty_and_small():
    assert {"digits/fc", "fashion_mnist/fc"} <= set(NAMES)
    assert sum(pretrained.find_ticket(name).stat().st_size for name in NAMES) < MOST_BYTES


def test_every_file_is_a_ticket_or_its_card():
    folder = pretrained.find_ticket("digits/fc").parent.parent
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {f"{name}{suffix}" for name in NAMES for suffix in (".ticket", ".toml")}


@pytest.mark.parametrize("name", NAMES)
def test_card_is_that_of_its_ticket(name):
    card, info = pretrained.read_card(name), keras_popup.ticket_info(pretrained.find_ticket(name))
    assert card.bytes == info.bytes == pretrained.find_ticket(name).stat().st_size
    assert card.weights == sum(row.weights for row in info.layers)
    assert card.kept == sum(row.kept for row in info.layers)
    assert info.made["metrics"]["accuracy"] == pytest.approx(card.test_accuracy, abs=5e-5)
    assert info.made["dataset"].partition(":")[0] == card.dataset


@pytest.mark.parametrize("name", NAMES)
def test_card_has_the_accuracy_of_its_network(name):
    card, model = pretrained.read_card(name), pretrained.load(name)
    images, labels = read_images(card)
    accuracy = (model.predict(images.astype(np.float32), verbose=0).argmax(-1) == labels).mean()
    if len(labels) == card.test_images:
        assert accuracy == pytest.approx(
            card.test_accuracy, abs=1.5 / len(labels)
        )  # an image more or less, by rounding
    else:
        error = (card.test_accuracy * (1 - card.test_accuracy) / len(labels)) ** 0.5
        assert abs(accuracy - card.test_accuracy) < 4 * error


@pytest.mark.parametrize("name", NAMES)
def test_card_has_the_command_that_made_it(name, monkeypatch):
    taken = []

    def train(config, out, **options):
        taken.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_popup.training.train", train)
    monkeypatch.setattr("keras_popup.cli.train.check_data_dir", lambda path: None)
    card = pretrained.read_card(name)
    commands = [shlex.split(command) for command in card.commands]
    *trainings, packing = [command for command in commands if command[0] != "python"]
    assert packing[:2] == ["keras-popup", "ticket"]
    for program, *command in trainings:
        assert program == "keras-popup"
        assert cli.main(command) == 130
    assert all((ROOT / script).exists() for program, script, *_ in commands if program == "python")
    config = taken[-1].with_protocol()
    assert config.dataset == card.dataset
    recorded = keras_popup.ticket_info(pretrained.find_ticket(name)).made["arguments"]
    assert {key: getattr(config, key) for key in recorded} == recorded


@pytest.mark.parametrize("name", NAMES)
def test_card_is_text_for_people(name):
    text = str(pretrained.read_card(name))
    assert text.startswith(name)
    assert "their licence" in text


def test_wrong_names_are_errors_that_list_the_right_ones():
    for function in (pretrained.load, pretrained.read_card, pretrained.find_ticket):
        with pytest.raises(ValueError, match=r"must be one of .*digits/fc, .*Received: 'mnist'"):
            function("mnist")
