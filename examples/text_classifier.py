"""A text classifier of KerasHub with random weights, masked: strings in; shipped as a preset and as a ticket.

The label of "although the soup was great, the cook was not very kind" is the opinion of its main clause: 0.

python examples/text_classifier.py --learned
"""

import argparse
import random
import sys
import tempfile

import keras
import numpy as np

import keras_popup

try:
    import keras_hub.models as hub
except ImportError:
    sys.exit("This example needs KerasHub: pip install keras-hub")

GOOD, BAD, THINGS, OTHERS = (
    words.split()
    for words in (
        "good great fresh lovely kind warm quick clean",
        "bad awful stale dull rude poor cold slow",
        "soup bread salad waiter cook music table wine",
        "although the was not very rather ,",
    )
)


def sentence(draw: random.Random) -> tuple[str, int]:
    clauses, opinions = [], []
    for _ in range(2):
        good, negated = draw.random() < 0.5, draw.random() < 0.25
        words = ["the", draw.choice(THINGS), "was", *["not"] * negated, *draw.choice([[], ["very"], ["rather"]])]
        clauses.append(" ".join([*words, draw.choice(GOOD if good else BAD)]))
        opinions.append(int(good != negated))
    main, other = clauses
    return draw.choice([f"although {other}, {main}", f"{main}, although {other}"]), opinions[0]


def classifier(width: int) -> keras.Model:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *THINGS, *OTHERS]
    sizes = {"num_layers": 2, "num_heads": 4, "hidden_dim": width, "intermediate_dim": 2 * width, "dropout": 0.0}
    return hub.BertTextClassifier(
        hub.BertBackbone(len(words), max_sequence_length=20, **sizes),
        num_classes=2,
        preprocessor=hub.BertTextClassifierPreprocessor(hub.BertTokenizer(words), sequence_length=20),
        dropout=0.0,
    )


def train(model: keras.Model, rate: float, data: dict, epochs: int) -> float:
    steps = epochs * len(data["train"][0]) // 32
    warmup = steps // 10
    schedule = keras.optimizers.schedules.CosineDecay(0.0, steps - warmup, warmup_target=rate, warmup_steps=warmup)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
    model.fit(*data["train"], batch_size=32, epochs=epochs, shuffle=False, verbose=2)
    return model.evaluate(*data["test"], batch_size=128, verbose=0)[1]


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--k", type=float, default=0.5, help="fraction of weights kept")
    parser.add_argument("--width", type=int, default=64, help="of the token vectors")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and the masks")
    parser.add_argument("--exclude", nargs="*", default=[], help="layers to train without a mask: token_embedding")
    parser.add_argument("--learned", action="store_true", help="train the same network without masks, too")
    arguments = parser.parse_args()

    draw = random.Random(1)
    examples: dict[str, int] = {}
    while len(examples) < 5000:
        examples.update([sentence(draw)])
    texts, labels = np.array(list(examples)), np.array(list(examples.values()))
    data = {"train": (texts[:4000], labels[:4000]), "test": (texts[4000:], labels[4000:])}

    keras.utils.set_random_seed(arguments.seed)
    model = classifier(arguments.width)
    options = {"kernel_initializer": "kaiming_normal", "exclude": arguments.exclude, "seed": arguments.seed}
    model = keras_popup.mask_model(model, arguments.k, **options)
    accuracy = train(model, 3e-3, data, arguments.epochs)
    if arguments.learned:
        print(f"learned weights: {train(classifier(arguments.width), 5e-4, data, arguments.epochs):.2%}")

    with tempfile.TemporaryDirectory() as folder:
        keras_popup.strip_masks(model).save_to_preset(f"{folder}/preset")
        print(keras_popup.save_ticket(model, f"{folder}/text.ticket", metrics={"accuracy": accuracy}))
        shipped = {
            "preset": hub.TextClassifier.from_preset(f"{folder}/preset"),
            "ticket": keras_popup.load_ticket(f"{folder}/text.ticket", trust=("keras_hub",)),
        }
        expected = model.predict(data["test"][0], verbose=0)
        for name, loaded in shipped.items():
            difference = np.abs(loaded.predict(data["test"][0], verbose=0) - expected).max()
            print(f"{name}: largest difference of predictions: {difference}")
    print(f"test accuracy {accuracy:.2%}")
    return accuracy


if __name__ == "__main__":
    main()
