"""The reader of tickets in JavaScript, in a browser: its outputs are Keras's, and its page names what one draws."""

import base64
import json
import re
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from browser import open_browser
from hostile_tickets import change, sealed
from ticket_checks import disturb

from keras_popup import initializers, load_ticket, mask_model, models, replace_head, save_ticket, selectors, tickets
from keras_popup.datasets import load

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of selenium's
]

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
PAGE = ROOT / "docs" / "reader" / "index.html"
layers = keras.layers


@pytest.fixture(scope="module")
def driver():
    driver = open_browser("window-size=1000,1200")
    driver.set_script_timeout(120)
    driver.get(PAGE.as_uri())
    yield driver
    driver.quit()


READ = """
    const [content, examples, done] = arguments;
    (async () => {
        const bytes = Uint8Array.from(atob(content), (char) => char.charCodeAt(0));
        const { run } = kerasPopupNetwork.buildModel(await kerasPopupTicket.readTicket(bytes));
        return examples.map((example) => Array.from(run(example), Number));
    })().then(done, (error) => done(`${error.name}: ${error.message}`));
"""


def run(driver, content, examples):
    """The outputs for examples, flat, or what the error says."""
    text = base64.b64encode(content).decode()
    outputs = driver.execute_async_script(READ, text, np.reshape(examples, (len(examples), -1)).tolist())
    return outputs if isinstance(outputs, str) else np.asarray(outputs)


def check(driver, path, examples):
    got = run(driver, path.read_bytes(), examples)
    assert not isinstance(got, str), got
    expected = load_ticket(path).predict(np.asarray(examples, "float32"), verbose=0)
    np.testing.assert_allclose(got, expected.reshape(len(examples), -1), rtol=1e-5, atol=1e-5)


def examples_for(model, number=3):
    return np.random.default_rng(0).uniform(0, 1, (number, *model.input_shape[1:])).astype("float32")


def test_reader_gives_the_outputs_of_the_golden_ticket(driver):
    check(driver, GOLDEN / "digits-v1.ticket", load("digits").test.images[:20] / 255)


def test_reader_gives_the_outputs_of_the_golden_pack(driver):
    golden = json.loads((GOLDEN / "pack-v1.json").read_text())
    script = """
        const [content, example, done] = arguments;
        const { readPack, readTicket } = kerasPopupTicket;
        (async () => {
            const pack = await readPack(Uint8Array.from(atob(content), (char) => char.charCodeAt(0)));
            const base = await readTicket(pack.base), outputs = {};
            for (const { name, content } of pack.tasks) {
                const { run } = kerasPopupNetwork.buildModel(await readTicket(content, { base }));
                outputs[name] = example.map((each) => Array.from(run(each), Number));
            }
            return outputs;
        })().then(done, (error) => done(error.message));
    """
    content = base64.b64encode((GOLDEN / "pack-v1.tickets").read_bytes()).decode()
    got = driver.execute_async_script(script, content, np.reshape(golden["inputs"], (4, -1)).tolist())
    assert list(got) == list(golden["outputs"])
    for name, expected in golden["outputs"].items():
        np.testing.assert_allclose(got[name], expected, rtol=1e-5, atol=1e-5)


def embedded():
    return base64.b64decode(re.search(r'id="embedded"[^>]*>([^<]*)<', PAGE.read_text())[1])


def test_ticket_of_the_page_is_as_accurate_as_it_says(driver, tmp_path):
    (tmp_path / "a.ticket").write_bytes(embedded())
    images, labels = load("digits").test.images, load("digits").test.labels
    check(driver, tmp_path / "a.ticket", images)
    accuracy = np.mean(run(driver, embedded(), images).argmax(-1) == labels)
    made = tickets.ticket_info(tmp_path / "a.ticket").made
    np.testing.assert_allclose(accuracy, made["metrics"]["accuracy"], rtol=1e-6)
    assert accuracy > 0.95
    assert len(embedded()) < 6000


def every_layer():
    inputs = keras.Input((9, 8, 3))
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 0.5])(inputs)
    x = layers.Rescaling([2.0, 0.5, 1.0], offset=0.1)(x)
    x = layers.ZeroPadding2D(((1, 2), (0, 3)))(x)
    x = layers.Conv2D(8, (3, 2), strides=2, padding="same", activation="silu")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.5)(layers.ReLU(max_value=1.5, negative_slope=0.2, threshold=0.1)(x))
    y = layers.Conv2D(8, 3, padding="same", groups=4, activation="tanh")(x)
    z = layers.Conv2D(8, 3, padding="same", dilation_rate=2, use_bias=False, activation=layers.LeakyReLU(0.3))(x)
    x = layers.Concatenate()([layers.Add()([x, y, z]), layers.Multiply()([x, y]), layers.Maximum()([y, z])])
    x = layers.DepthwiseConv2D((2, 3), depth_multiplier=2, padding="same", strides=2, activation="softplus")(x)
    x = layers.BatchNormalization(center=False, scale=False)(layers.Subtract()([x, layers.ELU(0.7)(x)]))
    x = layers.MaxPooling2D(2, 1, padding="same")(x)
    x = layers.Concatenate()([x, layers.AveragePooling2D((3, 2), 1, padding="same")(x)])
    head = keras.Sequential(
        [keras.Input((None, None, 96)), layers.Dense(5, activation="elu", name="inner")], name="head"
    )
    inside = keras.Input(x.shape[1:])
    block = keras.Model(inside, layers.Dense(6, activation="hard_sigmoid", name="inner")(inside), name="block")
    pooled = [layers.GlobalAveragePooling2D()(head(x)), layers.GlobalMaxPooling2D(keepdims=True)(block(x))]
    x = layers.Concatenate()([pooled[0], layers.Reshape((-1,))(pooled[1])])
    return keras.Model(inputs, layers.Softmax()(layers.Dense(4, activation="relu6")(x)))


def adapted():
    normalization = layers.Normalization(name="normalization")
    normalization.adapt(np.random.default_rng(1).normal(2, 3, (50, 4)))
    return keras.Sequential(
        [keras.Input((4,)), normalization, layers.Dense(7, activation="exponential"), layers.Dense(2)]
    )


NETWORKS = {
    "every_layer": every_layer,
    "adapted": adapted,
    "fc": lambda: models.FullyConnected(width=0.2),
    "conv2": lambda: models.Conv2(width=0.1),
    "conv6": lambda: models.Conv6(width=0.1),
    "resnet18": lambda: models.ResNet18(width=0.1),
    "resnet50": lambda: models.ResNet50((32, 32, 3), classes=10, width=0.07),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_reader_gives_the_outputs_of_every_network(driver, name, tmp_path):
    model = mask_model(NETWORKS[name](), k=0.4, train_biases=True, train_norms=True, seed=2**64 - 1)
    disturb(model)
    save_ticket(model, tmp_path / "a.ticket")
    check(driver, tmp_path / "a.ticket", examples_for(model))


KERNELS = {
    **{name: {"kernel_initializer": name} for name in initializers.INITIALIZERS},
    "scaled": {"kernel_initializer": initializers.KaimingNormal(scaled=True)},
    "bernoulli": {"selector": "bernoulli"},
    "rescaled": {"selector": selectors.Bernoulli(rescale=True)},
    "keep": {"weights": "keep"},
    "float16": {"weights": "keep"},
    "bfloat16": {"weights": "keep"},
    "all": {"k": 1.0},
    "few": {"k": 0.002},
}


@pytest.mark.parametrize("name", KERNELS)
def test_reader_gives_the_outputs_of_every_kind_of_kernel(driver, name, tmp_path):
    model = mask_model(models.FullyConnected((5, 5, 1), width=0.4), **{"k": 0.3, "seed": 7, **KERNELS[name]})
    disturb(model)
    save_ticket(model, tmp_path / "a.ticket", values_dtype=name if "float" in name else None)
    check(driver, tmp_path / "a.ticket", examples_for(model))


def test_reader_asks_for_the_base(driver, tmp_path):
    base = models.FullyConnected((5, 5, 1), width=0.4)
    task = mask_model(replace_head(base, 3, seed=1), 0.5, weights="keep", exclude="classes", seed=1)
    save_ticket(task, tmp_path / "a.ticket", base=base)
    error = run(driver, (tmp_path / "a.ticket").read_bytes(), examples_for(task))
    assert "the mask of layer 'dense1': it holds only what differs from a base: give the base too" in error


def refused():
    """(what is read, what the error says)."""
    good = (GOLDEN / "digits-v1.ticket").read_bytes()

    def edited(edit):
        return change(good, edit)

    def layer(number, **values):
        return edited(lambda manifest: manifest["model"]["config"]["layers"][number].update(values))

    def config(number, **values):
        return edited(lambda manifest: manifest["model"]["config"]["layers"][number]["config"].update(values))

    def mask(**values):
        return edited(lambda manifest: manifest["masks"][2].update(values))

    flipped = bytearray(good)
    flipped[3000] ^= 1
    return {
        "empty": (b"", "not a ticket"),
        "other": (b"PK\x03\x04" + bytes(80), "not a ticket"),
        "pack": ((GOLDEN / "pack-v1.tickets").read_bytes(), "not a ticket"),
        "header": (good[:20], "it is cut off: it has only 20 bytes"),
        "cut": (good[:-1], "it is damaged: it has 6855 bytes, and should have 6856"),
        "flipped": (bytes(flipped), "it is damaged: its checksum does not match"),
        "version": (sealed({}, b"", version=2), "it has version 2 of the format, and this reader knows version 1"),
        "json": (sealed(b"{", b""), "its manifest is not JSON"),
        "lists": (sealed({"masks": []}, b""), "its manifest has no list of tensors"),
        "layer": (layer(1, class_name="Conv3D"), "layer 'conv' is a keras.layers.Conv3D. This reader knows"),
        "module": (layer(1, module="evil"), "layer 'conv' is a evil.Conv2D"),
        "prototype": (layer(1, class_name="constructor"), "layer 'conv' is a keras.layers.constructor"),
        "activation": (config(1, activation="gelu"), "layer 'conv', a Conv2D: the activation gelu is none of linear"),
        "channels": (config(1, data_format="channels_first"), "its data_format is channels_first"),
        "axis": (config(2, axis=1), "layer 'norm', a BatchNormalization: its axis 1 is not the last one"),
        "weights": (config(6, name="other"), "weight '0' of layer 'other' is missing"),
        "unused": (config(2, scale=True, center=True), "weight '2' of layer 'norm' is missing"),
        "seed": (edited(lambda m: m["masks"][2]["initializer"]["config"].update(seed=5)), "layer 'hidden'"),
        "initializer": (
            edited(lambda m: m["masks"][2]["initializer"].update(registered_name="keras_popup>toString")),
            "the mask of layer 'hidden': its numbers come from toString, an initializer that this reader lacks",
        ),
        "selector": (
            edited(lambda m: m["masks"][2]["arguments"]["selector"].update(registered_name="mine>Best")),
            "the mask of layer 'hidden': its selector is mine>Best, which this reader lacks",
        ),
        "planes": (
            edited(lambda m: m["masks"][2]["arguments"].update(coding={"levels": [-1, 0, 1], "planes": []})),
            "the mask of layer 'hidden': it has 'coding', which this reader lacks",
        ),
        "kept": (mask(kept=4914), "the mask of layer 'hidden': its mask keeps 4915 weights, not 4914"),
        "check": (mask(mask_check="0"), "the mask of layer 'hidden': its mask is not the one that was saved"),
        "kernel_check": (mask(kernel_check="0"), "its kernel is not the one that was saved"),
        "shape": (mask(shape=[2**40, 2**40]), "more than the 1073741824 allowed"),
        "dtype": (mask(dtype="float16"), "its kernel is of float16, not float32"),
        "sections": (mask(sections=[[10**6, 0]] * 3), "its sections do not end in the file"),
        "crc": (mask(sections=[[164, 1], [1084, 0], [0, 0]]), "it does not match its checksum"),
        "twice": (edited(lambda m: m["tensors"][1].update(name="0")), "'0' of layer 'norm': it is listed twice"),
        "asset": (
            edited(lambda m: m["assets"].append({"layer": "norm", "name": "a", "size": 0, "sections": [[0, 0]]})),
            "'a' of layer 'norm': it is a file of a layer, which this reader lacks",
        ),
        "more": (change(good, lambda m: m["tensors"].pop()), "its sections end at byte"),
    }


REFUSED = refused()


@pytest.mark.parametrize("name", REFUSED)
def test_reader_refuses_what_it_does_not_know(driver, name):
    content, match = REFUSED[name]
    error = run(driver, content, np.zeros((1, 64)))
    assert isinstance(error, str)
    assert error.startswith("TicketError: ")
    assert match in error


def test_reader_takes_no_memory_for_what_decompresses_to_more(driver):
    manifest = {"model": {}, "masks": [], "tensors": [], "assets": []}
    bomb = zlib.compress(bytes(2**26), 9, -15)
    manifest["tensors"] = [
        {"layer": "a", "name": "0", "shape": [1], "dtype": "float32", "sections": [[len(bomb), zlib.crc32(bomb)]]}
    ]
    error = run(driver, sealed(manifest, bomb), np.zeros((1, 1)))
    assert "'0' of layer 'a': its data does not decompress to 4 bytes, but to more" in error


# Strokes of ten digits, in hundredths of the pad.
def arc(x, y, wide, high, first, last):
    angles = np.radians(np.linspace(first, last, 16))
    return [(x + wide * float(np.cos(angle)), y + high * float(np.sin(angle))) for angle in angles]


DIGITS = [
    [arc(50, 50, 26, 38, -90, 270)],
    [[(52, 10), (52, 90)]],
    [[*arc(50, 32, 24, 22, -170, 30), (28, 88), (76, 88)]],
    [[*arc(48, 30, 22, 20, -160, 90), *arc(48, 70, 25, 20, -90, 160)]],
    [[(58, 10), (24, 62), (80, 62)], [(62, 34), (60, 92)]],
    [[(72, 10), (34, 10), (32, 44), *arc(48, 66, 26, 24, -110, 150)]],
    [[(62, 12), (36, 44), *arc(50, 66, 22, 24, 200, -160)]],
    [[(24, 12), (76, 12), (44, 90)], [(34, 50), (68, 50)]],
    [[*arc(50, 30, 17, 20, 90, -270), *arc(50, 70, 20, 20, -90, 270)]],
    [[*arc(48, 32, 20, 21, -20, 340), (68, 34), (60, 90)]],
]


def draw(driver, strokes):
    """Draws with the pointer as a person does."""
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    driver.find_element("id", "clear").click()
    box = driver.execute_script("return document.getElementById('pad').getBoundingClientRect().toJSON()")
    actions = ActionBuilder(driver, mouse=PointerInput("pen", "pen"), duration=0)
    for stroke in strokes:
        for number, (x, y) in enumerate(stroke):
            actions.pointer_action.move_to_location(
                int(box["left"] + box["width"] * x / 100), int(box["top"] + box["height"] * y / 100)
            )
            if not number:
                actions.pointer_action.pointer_down()
        actions.pointer_action.pointer_up()
    actions.perform()
    drawn = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
    driver.execute_async_script(drawn)
    return driver.find_element("id", "answer").text


def shares(driver):
    return [float(cell.text.split()[0]) for cell in driver.find_elements("css selector", "#bars .value")]


@pytest.mark.parametrize("digit", range(10))
def test_page_names_a_drawn_digit(driver, digit):
    driver.get(PAGE.as_uri())
    assert draw(driver, DIGITS[digit]) == str(digit), shares(driver)
    assert abs(sum(shares(driver)) - 100) < 0.6
    assert int(np.argmax(shares(driver))) == digit
    driver.find_element("id", "clear").click()
    assert driver.find_element("id", "answer").text == "?"


def test_page_draws_examples_that_it_names(driver):
    driver.get(PAGE.as_uri())
    seen = set()
    for _ in range(10):
        driver.find_element("id", "example").click()
        seen.add(driver.find_element("id", "answer").text)
    assert seen == set("0123456789")


def test_page_shows_the_ticket_and_asks_no_server(driver):
    driver.get_log("performance")
    driver.get(PAGE.as_uri())
    assert driver.find_element("id", "bytes").text == f"{len(embedded()):,} bytes"
    assert "test accuracy" in driver.find_element("id", "facts").text
    assert driver.find_element("id", "origin").text == "trained on slanted_digits"
    assert "keras-popup train --dataset slanted_digits --seed 1" in driver.find_element("id", "command").text
    assert [log for log in driver.get_log("browser") if log["level"] == "SEVERE"] == []
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert len(urls) >= 4
    assert not [url for url in urls if not url.startswith(("file:", "data:"))]


def test_page_takes_files(driver, tmp_path):
    driver.get(PAGE.as_uri())
    model = mask_model(models.Conv2((12, 10, 3), classes=3, width=0.1), k=0.3, seed=1)
    save_ticket(model, tmp_path / "own.ticket", preprocess=[layers.Rescaling(1 / 255)], classes=["<b>", "cat", "dog"])
    image = np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype("uint8")
    keras.utils.save_img(tmp_path / "image.png", image, scale=False)
    (tmp_path / "bad.ticket").write_bytes((tmp_path / "own.ticket").read_bytes()[:-1])

    def give(path, condition):
        driver.find_element("id", "file").send_keys(str(path))
        script = f"""
            const done = arguments[0], wait = () => {condition} ? done(true) : setTimeout(wait, 20);
            wait();
        """
        assert driver.execute_async_script(script)

    give(tmp_path / "own.ticket", "document.getElementById('name').textContent === 'own.ticket'")
    labels = [cell.text for cell in driver.find_elements("css selector", "#bars li > span:first-child")]
    assert labels == ["<b>", "cat", "dog"]
    give(tmp_path / "image.png", "document.getElementById('answer').textContent !== '?'")
    logits = load_ticket(tmp_path / "own.ticket").predict(image[None].astype("float32"), verbose=0)
    expected = 100 * keras.ops.softmax(logits)[0]
    np.testing.assert_allclose(shares(driver), expected, atol=0.1)
    give(tmp_path / "bad.ticket", "!document.getElementById('error').hidden")
    assert "'bad.ticket' cannot be used: it is damaged" in driver.find_element("id", "error").text
    assert driver.find_element("id", "name").text == "own.ticket"
    give(GOLDEN / "pack-v1.tickets", "document.getElementById('name').textContent.startsWith('birds')")
    assert [option.text for option in driver.find_elements("css selector", "#tasks option")] == ["birds", "fish"]


@pytest.mark.parametrize("width", [390, 1400])
def test_page_fits_its_window(driver, width):
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        driver.get(PAGE.as_uri())
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
