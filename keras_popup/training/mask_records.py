"""What a run folder keeps of the masks for its page: masks.json."""

import base64

import keras
import numpy as np

from keras_popup import conversion
from keras_popup.layers import MaskedKernel
from keras_popup.records import MaskRecord, MasksRecord

_MOST_KERNELS = 24
_MOST_CELLS = 48  # of a map along each axis: a page with 24 maps stays small
_PARTS = 50  # of a histogram of scores


def describe_masks(model: keras.Model) -> MasksRecord:
    """Returns where the masks of a model keep weights, of its first 24 masked kernels."""
    kernels = conversion.find_kernels(model, "describe_masks")
    return MasksRecord(kernels=tuple(_describe(*each) for each in kernels[:_MOST_KERNELS]), total=len(kernels))


def _describe(path: str, kernel: MaskedKernel) -> MaskRecord:
    shares = conversion.average_channels(kernel, _MOST_CELLS)
    kept = kernel.read_mask().ravel() != 0
    scores = kernel.scores.numpy().ravel().astype(np.float64)
    finite = np.isfinite(scores)
    edges = np.histogram_bin_edges(scores[finite], _PARTS)
    return MaskRecord(
        path=path,
        weights=kept.size,
        kept=int(kept.sum()),
        rows=shares.shape[0],
        columns=shares.shape[1],
        map=base64.b64encode(np.round(255 * shares).astype(np.uint8).tobytes()).decode(),
        low=float(edges[0]),
        high=float(edges[-1]),
        scores_kept=np.histogram(scores[finite & kept], edges)[0].tolist(),
        scores_left_out=np.histogram(scores[finite & ~kept], edges)[0].tolist(),
    )
