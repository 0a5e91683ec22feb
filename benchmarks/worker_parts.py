"""Measures how many images per second one and two workers read and decode, each its part of every batch.

python benchmarks/worker_parts.py

The images are JPEG files of 320x240 pixels: streamed, cropped at random, resized to 224x224, flipped, as in training.
Each worker is a process with one core. "whole" is what each worker did before: it decodes all images of a batch.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH = 64


def write_images(folder: Path, count: int) -> None:
    """Writes as many JPEG files of smooth noise: half of them in each of two classes."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(1)
    for split, number in (("train", count), ("test", 2)):
        for index in range(number):
            small = tf.constant(rng.integers(0, 256, (15, 20, 3)), tf.float32)
            sizes = (240, 320) if index else (240, 324)  # of different sizes, so that they are streamed
            image = tf.cast(tf.image.resize(small, sizes, "bicubic"), tf.uint8)
            path = folder / split / ("cats", "dogs")[index % 2] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_jpeg(image).numpy())


def read_epoch(folder: str, worker: int, workers: int, whole: bool, barrier: Any, results: Any) -> None:
    """Reads an epoch as a worker does, and reports how long it took."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[worker % len(cores)]})
    from keras_popup import datasets

    data = datasets.load("photos", data_dir=folder, validation=0)
    part = datasets.Part(0, 1, 1) if whole else datasets.Part(worker, worker + 1, workers)
    next(iter(data.training_parts(BATCH, part, seed=1, epochs=1)))
    barrier.wait()
    begin = time.perf_counter()
    for _ in data.training_parts(BATCH, part, seed=1, epochs=1):
        pass
    results.put(time.perf_counter() - begin)


def measure(folder: str, workers: int, whole: bool) -> float:
    """Returns the seconds of the slowest worker for an epoch."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers), context.Queue()
    arguments = [(folder, worker, workers, whole, barrier, results) for worker in range(workers)]
    processes = [context.Process(target=read_epoch, args=each) for each in arguments]
    for process in processes:
        process.start()
    seconds = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    return max(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), arguments.images)
        print("| workers | each decodes | images per second, median (least to most) |\n|---|---|---|")
        for workers, whole in ((1, True), (2, True), (2, False)):
            speeds = sorted(arguments.images / measure(folder, workers, whole) for _ in range(arguments.runs))
            what = "the whole batch" if whole else "its part"
            print(
                f"| {workers} | {what} | {statistics.median(speeds):.0f} ({speeds[0]:.0f} to {speeds[-1]:.0f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
