"""Times the choice of the fraction k of n scores against one elementwise pass, `tf.abs(scores) * 2`.

There are four ways:
- "call" is `TopK()(scores, k)`, without a previous threshold.
- "step" is a choice in a step of training. It starts from the threshold of the step before, and the scores have
  changed a little.
- "still" is a choice as in predict: the scores have not changed.
- "xla" is a call that XLA compiles, against a pass that XLA compiles.

python benchmarks/selection.py --sizes 4194304 --ks 0.01,0.1,0.5,0.9,0.99
python benchmarks/selection.py --inputs normal,sorted,equal,two_values,outlier,fools_the_sample --ks 0.5
"""

import functools
import itertools

import numpy as np
import tensorflow as tf
from pairs import Table, compare, parser, repeated

from keras_popup import selectors
from keras_popup.selectors import counts, programs, thresholds


def fools_the_sample(rng: np.random.Generator, n: int) -> np.ndarray:
    scores = rng.standard_normal(n)
    stride = n // thresholds._SAMPLE_RUNS
    scores[: thresholds._SAMPLE_RUNS * stride].reshape(-1, stride)[:, : thresholds._SAMPLE_RUN] += 1e6
    return scores


INPUTS = {
    "uniform": lambda rng, n: rng.uniform(-1, 1, n),
    "normal": lambda rng, n: rng.standard_normal(n),
    "sorted": lambda rng, n: np.sort(rng.standard_normal(n)),
    "equal": lambda rng, n: np.ones(n),
    "two_values": lambda rng, n: rng.integers(0, 2, n),
    "outlier": lambda rng, n: np.where(np.arange(n) == n // 3, 1e30, 1e-30),
    "fools_the_sample": fools_the_sample,
}


def choose(scores: tf.Tensor, kept: tf.Tensor, hint: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    threshold = thresholds.find_threshold(scores, kept, hint)
    return tf.cast(thresholds.is_above(scores, threshold), tf.float32), threshold


class Choices:
    """The ways to choose the fraction k of values. Each is a method without arguments."""

    compiled_call = staticmethod(tf.function(selectors.TopK(), jit_compile=True))
    compiled_pass = staticmethod(tf.function(lambda scores: tf.abs(scores) * 2, jit_compile=True))

    def __init__(self, values: np.ndarray, rng: np.random.Generator, k: float) -> None:
        self.k = tf.constant(k, tf.float64)
        # A step of training moves about 300 of 4,194,304 scores past the threshold. So does this noise, at k = 0.5.
        moved = values * (1 + 1.5e-4 + 2e-4 * rng.standard_normal(values.size))
        self.turns = itertools.cycle([tf.constant(moved.astype(np.float32)), tf.constant(values)])
        self.scores = tf.constant(values)
        self.kept = tf.constant(counts.count_kept(k, values.size))
        self.choose = programs.compile_always(choose)
        self.right_hint = programs.compile_always(thresholds.find_threshold)(self.scores, self.kept)
        self.last_hint = self.right_hint

    def call(self) -> None:
        selectors.TopK()(self.scores, self.k)

    def step(self) -> None:
        _, self.last_hint = self.choose(next(self.turns), self.kept, self.last_hint)

    def still(self) -> None:
        self.choose(self.scores, self.kept, self.right_hint)

    def xla(self) -> None:
        self.compiled_call(self.scores, self.k)

    def elementwise(self, way: str) -> None:
        if way == "xla":
            self.compiled_pass(self.scores)
        else:
            tf.abs(self.scores) * 2


def main() -> None:
    arguments = parser(__doc__, runs=16)
    arguments.add_argument("--sizes", default="4194304", help="numbers of scores (default: %(default)s)")
    arguments.add_argument("--ks", default="0.01,0.1,0.5,0.9,0.99")
    arguments.add_argument("--inputs", default="uniform,normal", help=f"kinds of scores: {', '.join(INPUTS)}")
    arguments.add_argument("--ways", default="call,step,still,xla", help="ways to choose: call, step, still, xla")
    arguments = arguments.parse_args()
    table = Table(("scores", "input", "k", "way"), arguments)
    rng = np.random.default_rng(1)
    for n in map(int, arguments.sizes.split(",")):
        calls = 2 * max(1, 2**20 // n)
        for name in arguments.inputs.split(","):
            values = INPUTS[name](rng, n).astype(np.float32)
            for k in map(float, arguments.ks.split(",")):
                choices = Choices(values, rng, k)
                for way in arguments.ways.split(","):
                    run = repeated(getattr(choices, way), calls)
                    base = repeated(functools.partial(choices.elementwise, way), calls)
                    table.add(compare(run, base, arguments.runs), n, name, k, way)
    table.write()


if __name__ == "__main__":
    main()
