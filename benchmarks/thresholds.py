"""Compares signed masks by a threshold, as in their paper, with masks by k that keep as many weights.

Koster et al. keep the weights whose score is beyond a threshold, with the sign of the score: how many these are,
training decides. Each run leaves a line in benchmarks/results/thresholds.jsonl. Runs that have a line are skipped.
docs/methods.md shows them.

python benchmarks/thresholds.py --data_dir tfds
python benchmarks/thresholds.py --table
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import keras
import lines
import tensorflow as tf
from fitting import describe_run, measure, ship, spread
from methods import NETWORKS, find_best, fit_by_rate

import keras_popup

RESULT = Path(__file__).parent / "results" / "thresholds.jsonl"
NETWORK = "fc"
THRESHOLDS = (0.01, 0.02, 0.03, 0.035)
KINDS = {"threshold": None, "k": "signed", "one k": "global_top_k"}
"""The selectors: by the threshold, and those that keep as many weights of each kernel, or of all."""


@keras.saving.register_keras_serializable("benchmarks")
class Threshold(keras_popup.selectors.Selector):
    """Keeps each weight whose score is beyond a threshold, with the sign of the score. k says nothing."""

    levels = (-1, 0, 1)

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def __call__(self, scores: tf.Tensor, k: Any, training: bool = False) -> tf.Tensor:
        mask = tf.sign(scores) * tf.cast(tf.abs(scores) > self.threshold, tf.float32)
        return scores + tf.stop_gradient(mask - scores)

    def get_config(self) -> dict[str, Any]:
        return {"threshold": self.threshold}


def train(selector: Any, k: float, rate: float, seed: int, data: Any) -> dict[str, Any]:
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    plain = NETWORKS[NETWORK].build(data.image_shape, classes=len(data.classes))
    model = keras_popup.mask_model(plain, k=k, selector=selector, seed=seed)
    seconds = fit_by_rate(model, NETWORK, rate, seed, data, [])
    summary = keras_popup.mask_summary(model, print_fn=lambda text: None)
    row = {"rate": rate, "seed": seed, "kept": summary.kept / summary.weights, "accuracy": measure(model, data)}
    if isinstance(selector, str):
        row["ticket_bytes"] = ship(model, data).bytes
    return {**row, **describe_run(seconds)}


def rows_of(threshold: float, kind: str) -> list[dict[str, Any]]:
    return [row for row in lines.read(RESULT) if (row["threshold"], row["kind"]) == (threshold, kind)]


def run(threshold: float, kind: str, data: Any) -> None:
    """Trains with each rate by seed 1, and with the best of them by the other seeds."""
    chosen = NETWORKS[NETWORK]
    for seed in chosen.seeds:
        for rate in chosen.rates if seed == 1 else [find_best(rows_of(threshold, kind))[0]["rate"]]:
            if any((row["rate"], row["seed"]) == (rate, seed) for row in rows_of(threshold, kind)):
                continue
            selector = KINDS[kind]
            row = (
                train(selector, find_kept(threshold), rate, seed, data)
                if selector
                else train(Threshold(threshold), 0.5, rate, seed, data)
            )
            lines.add(RESULT, {"threshold": threshold, "kind": kind, **row})
            print(f"{kind} {threshold}, rate {rate}: {row['kept']:.2%}, {row['accuracy']['test']:.2%}", flush=True)


def find_kept(threshold: float) -> float:
    """Returns the fraction that the threshold's best runs keep."""
    return statistics.mean(row["kept"] for row in find_best(rows_of(threshold, "threshold")))


def table() -> str:
    text = ["| threshold | weights kept, % | signed, by the threshold, % | signed, by k, % | `global_top_k`, % |"]
    text.append("|---:|---:|---:|---:|---:|")
    for threshold in THRESHOLDS:
        accuracies = [
            spread([row["accuracy"]["test"] for row in find_best(rows_of(threshold, kind))]) for kind in KINDS
        ]
        text.append(f"| {threshold:g} | {100 * find_kept(threshold):.1f} | {' | '.join(accuracies)} |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="directory of TensorFlow Datasets")
    parser.add_argument("--table", action="store_true", help="print the stored results, train nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    data = keras_popup.datasets.load(NETWORKS[NETWORK].dataset, data_dir=arguments.data_dir, validation=0.1, seed=1)
    for threshold in THRESHOLDS:
        for kind in KINDS:
            run(threshold, kind, data)


if __name__ == "__main__":
    main()
