"""The networks of the papers, and MobileNet, as plain Keras models with a width.

They have no biases, and return float32 logits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_popup._workarounds import take_every_other_pixel

__all__ = [
    "Conv2",
    "Conv4",
    "Conv6",
    "Conv8",
    "FullyConnected",
    "MobileNet",
    "ResNet8",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "WideResNet50",
    "binarize",
    "get",
]

# The initial weights matter for the dense baseline only, because mask_model draws its own.
_KERNEL_INITIALIZER = "he_normal"

Shape = tuple[int, int, int]


def FullyConnected(
    input_shape: Shape = (28, 28, 1), classes: int = 10, width: float = 1.0, activation: str = "relu"
) -> keras.Model:
    """Builds the MNIST network of the papers: dense 300-100-classes.

    Args:
        input_shape: (height, width, channels) of the images.
        classes: number of classes, positive.
        width: float > 0, a factor of the units of every layer except the last: int(units * width).
        activation: the name of one of Keras's activations, or "binary", which is `binarize`.

    Returns:
        A `keras.Model` from images to logits of shape `(batch, classes)`.

    Example:

    >>> import keras_popup
    >>> keras_popup.models.FullyConnected().count_params()
    266200
    """
    inputs, scaled = _start(input_shape, classes, width)
    x = keras.layers.Flatten(name="flatten")(inputs)
    for number, units in enumerate((300, 100), 1):
        x = _dense(x, scaled(units), f"dense{number}", activation)
    return _finish("fc", inputs, x, classes)


def Conv2(
    input_shape: Shape = (32, 32, 3), classes: int = 10, width: float = 1.0, activation: str = "relu"
) -> keras.Model:
    """Builds Conv2: 3x3 convolutions 64-64, one max-pool, dense 256-256-classes.

    Args:
        input_shape: (height, width, channels) of the images.
        classes: number of classes, positive.
        width: float > 0, a factor of the channels of every layer except the last: int(channels * width).
        activation: the name of one of Keras's activations, or "binary", which is `binarize`.

    Returns:
        A `keras.Model` from images to logits of shape `(batch, classes)`.
    """
    return _vgg("conv2", (64,), input_shape, classes, width, activation)


def Conv4(
    input_shape: Shape = (32, 32, 3), classes: int = 10, width: float = 1.0, activation: str = "relu"
) -> keras.Model:
    """Builds Conv4: like `Conv2`, but with pairs of 3x3 convolutions of 64 and 128 channels."""
    return _vgg("conv4", (64, 128), input_shape, classes, width, activation)


def Conv6(
    input_shape: Shape = (32, 32, 3), classes: int = 10, width: float = 1.0, activation: str = "relu"
) -> keras.Model:
    """Builds Conv6: like `Conv2`, but with pairs of 3x3 convolutions of 64, 128 and 256 channels."""
    return _vgg("conv6", (64, 128, 256), input_shape, classes, width, activation)


def Conv8(
    input_shape: Shape = (32, 32, 3), classes: int = 10, width: float = 1.0, activation: str = "relu"
) -> keras.Model:
    """Builds Conv8: like `Conv2`, but with pairs of 3x3 convolutions of 64, 128, 256 and 512 channels."""
    return _vgg("conv8", (64, 128, 256, 512), input_shape, classes, width, activation)


def ResNet8(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    width: float = 1.0,
    stem: str | None = None,
    activation: str = "relu",
) -> keras.Model:
    """Builds the ResNet of MLPerf Tiny for CIFAR-10: three stages of one basic block, of 16, 32 and 64 channels.

    Unlike there, convolutions have no biases, and shortcuts have a normalization, as in the other ResNets here. See
    `ResNet18` for the arguments.

    Reference:
        Banbury et al., [MLPerf Tiny Benchmark](https://arxiv.org/abs/2106.07597).

    Example:

    >>> import keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.ResNet8(width=3), k=0.5, seed=1)
    >>> keras_popup.mask_summary(masked, print_fn=lambda text: None).weights
    689808
    """
    return _resnet("resnet8", _basic_block, (1, 1, 1), input_shape, classes, width, stem, activation, channels=16)


def ResNet18(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    width: float = 1.0,
    stem: str | None = None,
    activation: str = "relu",
) -> keras.Model:
    """Builds ResNet-18.

    Args:
        input_shape: (height, width, channels) of the images.
        classes: number of classes, positive.
        width: float > 0, a factor of the channels of every layer except the last: int(channels * width).
        stem: "cifar" (a 3x3 convolution), "imagenet" (a 7x7 convolution of stride 2 and a max-pool), or None, which
            chooses "cifar" for images of up to 64 pixels in height, else "imagenet".
        activation: the name of one of Keras's activations, or "binary", which is `binarize`.

    Returns:
        A `keras.Model` from images to logits of shape `(batch, classes)`.

    Reference:
        He et al., [arXiv 1512.03385](https://arxiv.org/abs/1512.03385). Bottlenecks have their stride in the 3x3
        convolution, as the networks in the paper on edge-popup do.
    """
    return _resnet("resnet18", _basic_block, (2, 2, 2, 2), input_shape, classes, width, stem, activation)


def ResNet34(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    stem: str | None = None,
    fold: bool = False,
    activation: str = "relu",
) -> keras.Model:
    """Builds ResNet-34.

    See `ResNet18` for the other arguments.

    Args:
        fold: bool. True builds a folded network: the equal blocks of a stage are one block, which is run several times.
            Each run has normalizations of its own. So a ticket holds the mask of one block for all of them.

    Reference:
        García-Arias et al., [Hidden-Fold Networks: Random Recurrent Residuals Using Sparse
        Supermasks](https://arxiv.org/abs/2111.12330).

    Example:

    >>> import keras_popup
    >>> plain, folded = (keras_popup.models.ResNet34((32, 32, 3), 10, width=0.25, fold=fold) for fold in (False, True))
    >>> plain.count_params(), folded.count_params()
    (1338864, 702960)
    """
    return _resnet("resnet34", _basic_block, (3, 4, 6, 3), input_shape, classes, width, stem, activation, fold)


def ResNet50(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    stem: str | None = None,
    fold: bool = False,
    activation: str = "relu",
) -> keras.Model:
    """Builds ResNet-50. See `ResNet18` and `ResNet34` for the arguments."""
    return _resnet("resnet50", _bottleneck, (3, 4, 6, 3), input_shape, classes, width, stem, activation, fold)


def ResNet101(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    stem: str | None = None,
    activation: str = "relu",
) -> keras.Model:
    """Builds ResNet-101. See `ResNet18` for the arguments."""
    return _resnet("resnet101", _bottleneck, (3, 4, 23, 3), input_shape, classes, width, stem, activation)


def WideResNet50(
    input_shape: Shape = (224, 224, 3),
    classes: int = 1000,
    width: float = 1.0,
    stem: str | None = None,
    activation: str = "relu",
) -> keras.Model:
    """Builds Wide ResNet-50-2: ResNet-50 with twice the channels inside each block.

    See `ResNet18` for the arguments.

    Reference:
        Zagoruyko and Komodakis, [arXiv 1605.07146](https://arxiv.org/abs/1605.07146).
    """
    return _resnet("wide_resnet50", _wide_bottleneck, (3, 4, 6, 3), input_shape, classes, width, stem, activation)


def MobileNet(
    input_shape: Shape = (224, 224, 3), classes: int = 1000, width: float = 1.0, activation: str = "relu"
) -> keras.Model:
    """Builds MobileNet: 13 pairs of a 3x3 depthwise and a 1x1 pointwise convolution.

    The layers are named "stem", "block1_depthwise", "block1_pointwise" and so on, "classes". LiteRT has sparse kernels
    for this network: docs/deploy.md has the conditions. They need images of 3 channels.

    Args:
        input_shape: (height, width, channels) of the images.
        classes: number of classes, positive.
        width: float > 0, a factor of the channels of every layer except the last: int(channels * width).
        activation: the name of one of Keras's activations, or "binary", which is `binarize`.

    Returns:
        A `keras.Model` from images to logits of shape `(batch, classes)`.

    Reference:
        Howard et al., [arXiv 1704.04861](https://arxiv.org/abs/1704.04861).
    """
    inputs, scaled = _start(input_shape, classes, width)
    x = _conv_norm(inputs, scaled(32), 3, "stem", strides=2, activation=activation)
    halving = (2, 4, 6, 12)  # the blocks of stride 2
    for block, channels in enumerate((64, 128, 128, 256, 256, *6 * (512,), 1024, 1024), 1):
        x = _depthwise_norm(x, f"block{block}_depthwise", activation, strides=2 if block in halving else 1)
        x = _conv_norm(x, scaled(channels), 1, f"block{block}_pointwise", activation=activation)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return _finish("mobilenet", inputs, x, classes)


@keras.saving.register_keras_serializable("keras_popup")
def binarize(x: Any) -> Any:
    """Returns 1 where x is at least 0, and -1 elsewhere. The activation of networks with 1-bit activations.

    The gradient is that of x clipped to [-1, 1]: it goes through where |x| is at most 1, and is 0 elsewhere.

    The function jumps at 0. So where sums end near 0, the rounding of another runtime or device turns single values,
    and what follows. `export` compares outputs and refuses such files, unless its `tolerance` is raised.

    Args:
        x: float tensor of any shape.

    Returns:
        Tensor of the shape and dtype of x.

    Reference:
        Diffenderfer and Kailkhura, [Multi-Prize Lottery Ticket Hypothesis](https://arxiv.org/abs/2103.09377), after
        Hubara et al., [Binarized Neural Networks](https://arxiv.org/abs/1602.02830).

    Example:

    >>> import keras_popup
    >>> keras_popup.models.binarize([-3.0, -0.5, 0.0, 2.0]).numpy()
    array([-1., -1.,  1.,  1.], dtype=float32)
    """
    x = keras.ops.convert_to_tensor(x)
    one = keras.ops.ones_like(x)
    within = keras.ops.where(keras.ops.abs(x) <= 1, x, keras.ops.zeros_like(x))
    through = within - keras.ops.stop_gradient(within)  # exactly 0, with the gradient of `within`
    return keras.ops.where(x >= 0, one, -one) + through


def _find_activation(name: str | None) -> Any:
    return binarize if name == "binary" else keras.activations.get(name)


def _activate(x: Any, name: str, activation: str) -> Any:
    return keras.layers.Activation(_find_activation(activation), name=f"{name}_{activation}")(x)


_MODELS: dict[str, Callable[..., keras.Model]] = {
    "fc": FullyConnected,
    "conv2": Conv2,
    "conv4": Conv4,
    "conv6": Conv6,
    "conv8": Conv8,
    "resnet8": ResNet8,
    "resnet18": ResNet18,
    "resnet34": ResNet34,
    "resnet50": ResNet50,
    "resnet101": ResNet101,
    "wide_resnet50": WideResNet50,
    "mobilenet": MobileNet,
}


def get(name: str) -> Callable[..., keras.Model]:
    """Returns the function that builds a model.

    Args:
        name: str, such as "conv4" or "resnet18".

    Raises:
        ValueError: if there is no model with this name.
    """
    if name not in _MODELS:
        raise ValueError(f"Unknown model. Expected one of {list(_MODELS)}. Received: {name!r}.")
    return _MODELS[name]


def _start(input_shape: Sequence[int], classes: int, width: float) -> tuple[Any, Callable[[int], int]]:
    if len(input_shape) != 3 or not all(isinstance(size, int) and size > 0 for size in input_shape):
        raise ValueError(
            "`input_shape` must be (height, width, channels) of one image, positive integers. "
            f"Received: input_shape={input_shape}."
        )
    if not isinstance(classes, int) or classes < 1:
        raise ValueError(f"`classes` must be a positive integer. Received: classes={classes!r}.")
    if not width > 0:
        raise ValueError(f"`width` must be a positive number. Received: width={width!r}.")

    def scaled(channels: int) -> int:
        if int(channels * width) < 1:
            raise ValueError(f"width={width} leaves no channel of {channels}. Use at least {1 / channels:.3g}.")
        return int(channels * width)

    return keras.Input(tuple(input_shape), name="images"), scaled


def _finish(name: str, inputs: Any, x: Any, classes: int) -> keras.Model:
    x = _dense(x, classes, "classes", None)
    # With mixed precision, the loss and other users of the logits still get float32.
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name=name)


def _dense(x: Any, units: int, name: str, activation: str | None) -> Any:
    return keras.layers.Dense(
        units,
        activation=_find_activation(activation),
        use_bias=False,
        kernel_initializer=_KERNEL_INITIALIZER,
        name=name,
    )(x)


_Folded = dict[str, keras.layers.Layer]
"""The convolutions that the equal blocks of a stage share, by their names without that of the block."""


def _conv(
    x: Any,
    filters: int,
    size: int,
    name: str,
    strides: int = 1,
    activation: str | None = None,
    folded: _Folded | None = None,
) -> Any:
    if folded is not None:
        stage, _, own = name.split("_", 2)
        if own not in folded:
            folded[own] = keras.layers.Conv2D(
                filters,
                size,
                padding="same",
                use_bias=False,
                kernel_initializer=_KERNEL_INITIALIZER,
                name=f"{stage}_folded_{own}",
            )
        return folded[own](x)
    padding = "same"
    if strides > 1:
        # Pads both sides equally, like the reference networks. "same" would pad the right and bottom more.
        x = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    return keras.layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding=padding,
        activation=_find_activation(activation),
        use_bias=False,
        kernel_initializer=_KERNEL_INITIALIZER,
        name=name,
    )(x)


def _vgg(
    name: str, stages: Sequence[int], input_shape: Shape, classes: int, width: float, activation: str
) -> keras.Model:
    inputs, scaled = _start(input_shape, classes, width)
    smallest = 2 ** len(stages)
    if min(input_shape[:2]) < smallest:
        raise ValueError(
            f"Model '{name}' halves the image {len(stages)} times and needs at least {smallest}x{smallest} pixels. "
            f"Received: input_shape={input_shape}. Use a shallower model or larger images."
        )
    x = inputs
    for stage, channels in enumerate(stages, 1):
        for half in "ab":
            x = _conv(x, scaled(channels), 3, f"conv{stage}{half}", activation=activation)
        x = keras.layers.MaxPooling2D(2, name=f"pool{stage}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        x = _dense(x, scaled(256), f"dense{number}", activation)
    return _finish(name, inputs, x, classes)


def _resnet(
    name: str,
    block: Callable[..., Any],
    repeats: Sequence[int],
    input_shape: Shape,
    classes: int,
    width: float,
    stem: str | None,
    activation: str,
    fold: bool = False,
    channels: int = 64,
) -> keras.Model:
    inputs, scaled = _start(input_shape, classes, width)
    stem = stem or ("cifar" if input_shape[0] <= 64 else "imagenet")
    if stem == "cifar":
        x = _conv_norm(inputs, scaled(channels), 3, "stem", activation=activation)
    elif stem == "imagenet":
        x = _conv_norm(inputs, scaled(channels), 7, "stem", strides=2, activation=activation)
        x = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(x)  # after a relu, zeros do not change a maximum
        x = keras.layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    else:
        raise ValueError(f"`stem` must be 'cifar', 'imagenet' or None. Received: stem={stem!r}.")
    for stage, blocks in enumerate(repeats):
        folded: _Folded = {}
        for number in range(blocks):
            strides = 2 if stage > 0 and number == 0 else 1
            # The first block of a stage differs from the others, except in the first stage of basic blocks.
            is_equal = number > 0 or (stage == 0 and block is _basic_block)
            x = block(
                x,
                channels * 2**stage,
                scaled,
                strides,
                f"stage{stage + 1}_block{number + 1}",
                activation,
                folded if fold and is_equal else None,
            )
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return _finish(name, inputs, x, classes)


def _conv_norm(
    x: Any,
    filters: int,
    size: int,
    name: str,
    strides: int = 1,
    activation: str | None = None,
    folded: _Folded | None = None,
) -> Any:
    return _norm(_conv(x, filters, size, name, strides, folded=folded), name, activation)


def _norm(x: Any, name: str, activation: str | None) -> Any:
    x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
    return _activate(x, name, activation) if activation else x


def _depthwise_norm(x: Any, name: str, activation: str, strides: int) -> Any:
    padding = "same"
    if strides > 1:
        x = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x)  # both sides equally, as in _conv
        padding = "valid"
    x = keras.layers.DepthwiseConv2D(
        3, strides=strides, padding=padding, use_bias=False, depthwise_initializer=_KERNEL_INITIALIZER, name=name
    )(x)
    return _norm(x, name, activation)


def _add_shortcut(x: Any, branch: Any, strides: int, name: str, activation: str) -> Any:
    if x.shape[-1] != branch.shape[-1] or strides > 1:
        if strides > 1:
            x = take_every_other_pixel(x, strides, f"{name}_shortcut_pixels")
        x = _conv_norm(x, branch.shape[-1], 1, f"{name}_shortcut")
    x = keras.layers.Add(name=f"{name}_add")([branch, x])
    return _activate(x, name, activation)


def _basic_block(
    x: Any,
    channels: int,
    scaled: Callable[[int], int],
    strides: int,
    name: str,
    activation: str,
    folded: _Folded | None,
) -> Any:
    branch = _conv_norm(x, scaled(channels), 3, f"{name}_conv1", strides, activation, folded)
    branch = _conv_norm(branch, scaled(channels), 3, f"{name}_conv2", folded=folded)
    return _add_shortcut(x, branch, strides, name, activation)


def _bottleneck(
    x: Any,
    channels: int,
    scaled: Callable[[int], int],
    strides: int,
    name: str,
    activation: str,
    folded: _Folded | None,
    inner_factor: int = 1,
) -> Any:
    inner = scaled(channels * inner_factor)
    branch = _conv_norm(x, inner, 1, f"{name}_conv1", 1, activation, folded)
    branch = _conv_norm(branch, inner, 3, f"{name}_conv2", strides, activation, folded)
    branch = _conv_norm(branch, 4 * scaled(channels), 1, f"{name}_conv3", folded=folded)
    return _add_shortcut(x, branch, strides, name, activation)


def _wide_bottleneck(
    x: Any,
    channels: int,
    scaled: Callable[[int], int],
    strides: int,
    name: str,
    activation: str,
    folded: _Folded | None,
) -> Any:
    return _bottleneck(x, channels, scaled, strides, name, activation, folded, inner_factor=2)
