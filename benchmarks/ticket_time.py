"""Measures how long the tickets take to load that are near the limits: with many layers, and with many planes of bits.

python benchmarks/ticket_time.py
"""

import argparse
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

import keras_popup
from keras_popup import selectors


def build_wide(layers: int) -> keras.Model:
    """Returns a masked network of many small layers, side by side."""
    inputs = keras.Input((4,))
    found = [keras.layers.Dense(2, use_bias=False)(inputs) for _ in range(layers)]
    return keras_popup.mask_model(keras.Model(inputs, keras.layers.Concatenate()(found)), k=0.5, seed=1)


def build_coats(coats: int, units: int) -> keras.Model:
    """Returns a masked layer whose mask has many planes of bits, of scores at random."""
    plain = keras.Sequential([keras.Input((units,)), keras.layers.Dense(units, use_bias=False)])
    model = keras_popup.mask_model(plain, k=1.0, selector=selectors.MultiCoat(coats=coats), seed=1)
    for layer in keras_popup.masked_layers(model):
        for kernel in layer.masked_kernels.values():
            kernel.scores.assign(np.random.default_rng(1).normal(size=kernel.scores.shape))
    return model


def measure(model: keras.Model) -> tuple[int, float]:
    """Returns the bytes of a model's ticket, and the processor's seconds for loading it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.ticket")
        info = keras_popup.save_ticket(model, path, preprocess=[])
        begin = time.process_time()
        keras_popup.load_ticket(path)
        return info.bytes, time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="*", default=[500, 2040])
    parser.add_argument("--coats", type=int, nargs="*", default=[3, 30])
    parser.add_argument("--units", type=int, default=2048, help="The kernel with coats has this number squared.")
    arguments = parser.parse_args()
    print("| ticket | bytes | s to load | ns a weight and plane |\n|---|---:|---:|---:|")
    for layers in arguments.layers:
        size, seconds = measure(build_wide(layers))
        print(f"| {layers:,} layers | {size:,} | {seconds:.1f} | |", flush=True)
    for coats in arguments.coats:
        size, seconds = measure(build_coats(coats, arguments.units))
        each = 1e9 * seconds / arguments.units**2 / (coats + 1)
        print(f"| {arguments.units}² weights, {coats} coats | {size:,} | {seconds:.1f} | {each:.0f} |", flush=True)


if __name__ == "__main__":
    main()
