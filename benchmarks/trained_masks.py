"""Masks trained networks by the criteria of Zhou et al. and tests the masked networks.

The networks are those with learned weights in the group "methods" of benchmarks/reproduce.py, which leaves them in
runs/reproduce. The accuracies go to benchmarks/results/criteria.json; benchmarks/results_page.py draws them.

python benchmarks/reproduce.py --only methods --again --data_dir fashion_mnist=DIRECTORY
python benchmarks/trained_masks.py --data_dir fashion_mnist=DIRECTORY
"""

import argparse
import dataclasses
import json
from pathlib import Path

import keras
import reproduce
from reproduction.rows import GROUPS, Row

from keras_popup import criteria, datasets
from keras_popup._files import write_atomically
from keras_popup.training import RunConfig, experiment

RESULT = Path(__file__).parent / "results" / "criteria.json"
FRACTIONS = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9)


def initial_network(config: RunConfig) -> tuple[keras.Model, datasets.Dataset]:
    """Returns a network with its weights before training, and the data."""
    keras.utils.set_random_seed(config.seed)  # as in training
    data = experiment.load_data(config)
    return experiment.build_model(config, data.image_shape, len(data.classes), [data.preprocessing()]), data


def masked(row: Row, data_dir: str | None) -> list[dict]:
    config = dataclasses.replace(row.config.with_protocol(), data_dir=data_dir)
    initial, data = initial_network(config)
    final = keras.models.load_model(row.folder / "model.keras")
    found = []
    for criterion in criteria.CRITERIA:
        for treatment in criteria.TREATMENTS:
            for k in FRACTIONS:
                network = criteria.mask_trained(initial, final, k, criterion, treatment, seed=config.seed)
                experiment.compile_model(network, config, steps=1)
                tested = network.evaluate(data.evaluation_batches("test", 1000), return_dict=True, verbose=0)
                place = {"seed": config.seed, "criterion": criterion, "treatment": treatment, "k": k}
                found.append({**place, "accuracy": tested["accuracy"]})
        print(f"seed {config.seed}, {criterion}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reproduce.add_data_dir(parser)
    arguments = parser.parse_args()
    places = reproduce.places(arguments.data_dir)
    rows = [row for row in GROUPS["methods"] if row.config.method == "dense"]
    found = [each for row in rows for each in masked(row, places.get(row.config.dataset))]
    text = json.dumps({"rows": found}) + "\n"
    write_atomically(RESULT, lambda path: path.write_text(text))


if __name__ == "__main__":
    main()
