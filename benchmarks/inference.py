"""What a mask costs at inference: the time of a masked network over that of the stripped one.

    python benchmarks/inference.py
    python benchmarks/inference.py --models Conv4 GPT2 --runs 50

`predict` and `generate` with and without `jit_compile`, and an eager call `model(x)`. Both networks of a pair have the
same outputs. GPT2 is a small one of KerasHub's with random weights: pip install keras-hub.
"""

from typing import Any

import numpy as np
from pairs import Table, compare, parser, timed

# The name of a network, its batch size, and how many calls are timed together.
CASES = {
    "FullyConnected, batch 1": ("FullyConnected", 1, 20),
    "FullyConnected, batch 128": ("FullyConnected", 128, 20),
    "Conv2, batch 1": ("Conv2", 1, 20),
    "Conv4, batch 32": ("Conv4", 32, 4),
    "ResNet18, batch 8": ("ResNet18", 8, 4),
}
GPT2 = "GPT2, 56 tokens"


def build(name: str) -> Any:
    """Returns a network of keras_popup.models for 32x32 images, or 28x28."""
    from keras_popup import models

    return getattr(models, name)() if name == "FullyConnected" else getattr(models, name)((32, 32, 3), 10)


def build_gpt2() -> Any:
    """Returns a text generator of four small blocks."""
    import keras_hub

    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=500, num_layers=4, num_heads=4, hidden_dim=256, intermediate_dim=1024, max_sequence_length=64
    )
    return keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)


def main() -> None:
    arguments = parser(__doc__, runs=21)
    arguments.add_argument("--models", nargs="+", metavar="NAME", help="only networks whose names begin with these")
    arguments = arguments.parse_args()
    import keras_popup

    def wanted(name: str) -> bool:
        return not arguments.models or name.startswith(tuple(arguments.models))

    table = Table(["how", "network"], arguments)
    for case, (name, batch, count) in CASES.items():
        if not wanted(case):
            continue
        masked = keras_popup.mask_model(build(name), k=0.5, seed=1)
        both = masked, keras_popup.strip_masks(masked)
        x = np.random.default_rng(1).random((batch * count, *masked.input_shape[1:]), np.float32)
        for how in ("model(x)", "predict", "predict, jit_compile"):
            for model in both:
                model.compile(jit_compile="jit" in how)

            def call(model: Any, how: str = how, x: Any = x, batch: int = batch, count: int = count) -> None:
                if how == "model(x)":
                    for _ in range(count):
                        model(x[:batch])
                else:
                    model.predict(x, batch_size=batch, verbose=0)

            runs = [timed(lambda model=model: call(model), count) for model in both]
            table.add(compare(*runs, arguments.runs), how, case)
    if wanted(GPT2):
        masked = keras_popup.mask_model(build_gpt2(), k=0.5, seed=1)
        both = masked, keras_popup.strip_masks(masked)
        prompt = {"token_ids": np.ones((1, 64), "int32"), "padding_mask": np.arange(64)[None] < 8}
        for how in ("generate", "generate, jit_compile"):
            for model in both:
                model.compile(sampler="greedy", jit_compile="jit" in how)
            runs = [timed(lambda model=model: model.generate(prompt, stop_token_ids=None)) for model in both]
            table.add(compare(*runs, arguments.runs), how, GPT2)
    table.write()


if __name__ == "__main__":
    main()
