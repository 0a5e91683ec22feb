"""Measures the memory at the peak of loading a ticket, for each kind of mask, against what `max_bytes` counts.

python benchmarks/ticket_memory.py

Works on Linux, where a process can ask for its peak since it last asked.
"""

import argparse
import ctypes
import gc
import tempfile
from pathlib import Path
from typing import Any

import keras

import keras_popup
from keras_popup import selectors
from keras_popup.tickets import file_format, limits

KINDS: dict[str, dict[str, Any]] = {
    "top_k": {},
    "normal": {"kernel_initializer": "kaiming_normal"},
    "keep": {"weights": "keep"},
    "bernoulli": {"selector": "bernoulli"},
    "global_top_k": {"selector": "global_top_k"},
    "signed": {"selector": "signed"},
    "multicoat": {"selector": selectors.MultiCoat(coats=3)},
    "n_m": {"selector": "n_m"},
    "block": {"selector": "block"},
    "fixed": {"selector": selectors.TopK(pruned=0.2, locked=0.1)},
}


def read_memory(name: str) -> int:
    """Returns the bytes that a line of this process's status has: "VmRSS" now, "VmHWM" at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def begin_anew() -> int:
    """Returns the bytes that are in use; the peak is counted from here."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return read_memory("VmRSS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--units", type=int, default=4096, help="The kernel has this number of inputs and of outputs.")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS])
    arguments = parser.parse_args()
    units = arguments.units
    print("| mask | masked | bytes a weight at the peak | counted |\n|---|---|---|---|")
    for kind in arguments.kinds:
        plain = keras.Sequential([keras.Input((units,)), keras.layers.Dense(units)])
        model = keras_popup.mask_model(plain, k=0.5, seed=1, **KINDS[kind])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "x.ticket")
            keras_popup.save_ticket(model, path, preprocess=[])
            del model, plain
            for masked in (False, True):
                counted = limits.compute_peak(file_format.read(path, 1 << 40), masked=masked)
                before = begin_anew()
                loaded = keras_popup.load_ticket(path, masked, max_bytes=1 << 40)
                peak = read_memory("VmHWM") - before
                del loaded
                print(f"| {kind} | {masked} | {peak / units**2:.1f} | {counted / units**2:.1f} |", flush=True)


if __name__ == "__main__":
    main()
