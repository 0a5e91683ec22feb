"""Maps as PNG."""

import base64
import io

import numpy as np
import pytest
from matplotlib import image

from keras_popup import _style
from keras_popup.pages import draw_map


def test_draw_map_is_a_png_with_a_pixel_for_each_share():
    shares = np.arange(6, dtype=np.uint8).reshape(2, 3) * 51
    address = draw_map(shares.tobytes(), 2, 3)
    start = "data:image/png;base64,"
    assert address.startswith(start)
    pixels = image.imread(io.BytesIO(base64.b64decode(address.removeprefix(start))))
    assert pixels.shape == (2, 3, 4)
    np.testing.assert_array_equal(np.round(255 * pixels[..., 3]), shares)
    color = bytes(np.round(255 * pixels[1, 2, :3]).astype(np.uint8)).hex()
    assert f"#{color}" == _style.KEPT


@pytest.mark.parametrize(("shares", "rows", "columns"), [(b"", 0, 0), (b"abc", 2, 2)])
def test_draw_map_refuses_other_numbers_of_cells(shares, rows, columns):
    with pytest.raises(ValueError, match=f"Expected {rows} x {columns} shares"):
        draw_map(shares, rows, columns)
