"""Times tasks over one ResNet50, and counts the memory of each.

The first answer of a task whose masked kernels are not there yet, against the next one; in turn, over several tasks
with `max_in_use=1`. The memory that tasks take when they are added is what Python and NumPy have allocated.

python benchmarks/many_tasks.py --runs 11
"""

import gc
import statistics
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path

import keras
import numpy as np
from pairs import Table, compare, parser, timed

import keras_popup

COUNT = 6


def time_answer(model: keras.Model, x: np.ndarray) -> float:
    begin = time.perf_counter()
    model.predict(x, verbose=0)
    return 1e3 * (time.perf_counter() - begin)


def count_wrong_answers(tasks: keras_popup.TaskMasks, x: np.ndarray) -> int:
    """Asks four tasks in four threads, with the kernels of one kept."""
    names = [str(number) for number in range(4)]
    expected = {name: tasks[name].predict(x, verbose=0) for name in names}
    wrong: list[str] = []

    def ask(name: str) -> None:
        for _ in range(5):
            if not np.allclose(tasks[name].predict_on_batch(x), expected[name], rtol=1e-4, atol=1e-5):
                wrong.append(name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(wrong)


def main() -> None:
    arguments = parser(__doc__, runs=11).parse_args()
    base = keras.applications.ResNet50(weights=None)
    kernels = sum(layer.kernel.shape.num_elements() for layer in base.layers if hasattr(layer, "kernel"))
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for seed in range(COUNT):
            model = keras_popup.replace_head(base, 10, seed=seed)
            head = model.layers[-1].name
            masked = keras_popup.mask_model(model, 0.5, weights="keep", exclude=head, seed=seed)
            for layer in keras_popup.masked_layers(masked):  # as training would move them
                layer.scores.assign_add(keras.random.normal(layer.scores.shape, stddev=0.01, seed=seed))
            files.append(Path(folder, f"{seed}.ticket"))
            keras_popup.save_ticket(masked, files[-1], base=base, preprocess=[])
        del model, masked
        tasks = keras_popup.TaskMasks(base, max_in_use=1)
        tasks.add("0", files[0])
        gc.collect()
        tracemalloc.start()
        for number in range(COUNT):
            tasks.add(f"more {number}", files[number])
        gc.collect()
        each = tracemalloc.get_traced_memory()[0] / COUNT / 1e6
        tracemalloc.stop()
        for seed in range(1, COUNT):
            tasks.add(str(seed), files[seed])
    print(f"{kernels:,} weights in kernels: {kernels / 8e6:.2f} MB of masks a task; measured {each:.2f} MB a task")
    for batch in (1, 8):
        x = np.random.default_rng(0).random((batch, 224, 224, 3)).astype("float32")
        for name in ("0", "1", "0", "1"):
            time_answer(tasks[name], x)
        firsts, seconds = [], []
        for run in range(arguments.runs):
            model = tasks[str(run % COUNT)]
            firsts.append(time_answer(model, x))
            seconds.append(time_answer(model, x))
        extra = statistics.median(a - b for a, b in zip(firsts, seconds, strict=True))
        print(
            f"batch {batch}: first answer {statistics.median(firsts):.0f} ms, next "
            f"{statistics.median(seconds):.0f} ms, median difference {extra:.0f} ms"
        )
    plain = tasks.unpack("0")
    x = np.random.default_rng(0).random((8, 224, 224, 3)).astype("float32")
    table = Table(("what",), arguments)
    own, other = (timed(lambda model=model: model.predict(x, verbose=0)) for model in (tasks["0"], plain))
    table.add(compare(own, other, arguments.runs), "predict of a task / of its plain model, batch 8")
    print(f"threads: {count_wrong_answers(tasks, x[:1])} wrong answers")
    table.write()


if __name__ == "__main__":
    main()
