"""Times a training step against the reference method in PyTorch, an autograd function that sorts the scores.

Both have the same network (without biases), batch size and optimizer. They run in turn, in one process, on the CPU.
The script needs PyTorch: pip install 'keras-popup[pytorch]'

python benchmarks/against_pytorch.py --models fc,conv2,conv4 --precisions float32,mixed_bfloat16
"""

import contextlib
import itertools

import torch
from pairs import Table, compare, parser, timed
from torch.nn import functional
from train_step import stepper

CONVOLUTIONS = {"conv2": (64, 64), "conv4": (64, 64, 128, 128)}


class Subnet(torch.autograd.Function):
    """The mask of the fraction k of best scores, by a full sort. The gradient passes straight through."""

    @staticmethod
    def forward(context, scores, k):
        order = scores.flatten().argsort()
        left_out = round((1 - k) * scores.numel())
        mask = torch.ones_like(scores).flatten()
        mask[order[:left_out]] = 0.0
        return mask.view_as(scores)

    @staticmethod
    def backward(context, upstream):
        return upstream, None


class Masked(torch.nn.Module):
    """A dense or convolutional layer with a frozen kernel and learned scores."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        fan_in = torch.Size(shape[1:]).numel()
        signs = torch.randint(0, 2, shape) * 2.0 - 1.0
        self.kernel = torch.nn.Parameter(signs * (2 / fan_in) ** 0.5, requires_grad=False)
        self.scores = torch.nn.Parameter((torch.rand(shape) * 2 - 1) / fan_in**0.5)

    def forward(self, inputs):
        kernel = self.kernel * Subnet.apply(self.scores.abs(), 0.5)
        return functional.linear(inputs, kernel) if kernel.dim() == 2 else functional.conv2d(inputs, kernel, padding=1)


def network(name: str) -> torch.nn.Module:
    """Returns the network of the same name as in keras_popup.models."""
    if name == "fc":
        layers, sizes = [torch.nn.Flatten()], (784, 300, 100, 10)
    else:
        layers, channels = [], 3
        for number, filters in enumerate(CONVOLUTIONS[name]):
            layers += [Masked((filters, channels, 3, 3)), torch.nn.ReLU()]
            layers += [torch.nn.MaxPool2d(2)] if number % 2 else []
            channels = filters
        side = 32 >> len(CONVOLUTIONS[name]) // 2
        layers, sizes = [*layers, torch.nn.Flatten()], (channels * side * side, 256, 256, 10)
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [Masked((outputs, inputs)), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def reference(name: str, precision: str, batch_size: int, steps: int):
    """Returns a function that trains in PyTorch for a number of steps."""
    torch.manual_seed(1)
    model = network(name)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1, 0.9, weight_decay=1e-4)
    images = torch.randn(batch_size, *((1, 28, 28) if name == "fc" else (3, 32, 32)))
    labels = torch.randint(0, 10, (batch_size,))
    half = precision == "mixed_bfloat16"

    def run() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext():
                loss = functional.cross_entropy(model(images).float(), labels)
            loss.backward()
            optimizer.step()

    return run


def main() -> None:
    arguments = parser(__doc__, runs=8)
    arguments.add_argument("--models", default="fc,conv2,conv4")
    arguments.add_argument("--precisions", default="float32,mixed_bfloat16")
    arguments.add_argument("--batch_size", type=int, default=128)
    arguments = arguments.parse_args()
    table = Table(("model", "precision"), arguments)
    for name in arguments.models.split(","):
        for precision in arguments.precisions.split(","):
            steps = 20 if name == "fc" else 1
            own = timed(stepper(steps, name, precision, "edge-popup", arguments.batch_size), steps)
            other = timed(reference(name, precision, arguments.batch_size, steps), steps)
            table.add(compare(own, other, arguments.runs), name, precision)
    table.write()


if __name__ == "__main__":
    main()
