"""Small pictures inside a page: a map of a mask, as PNG in a data address."""

import base64
import struct
import zlib

from keras_popup import _style


def draw_map(shares: bytes, rows: int, columns: int) -> str:
    """Returns a map as the address of a PNG: a pixel for each share, clear where nothing is kept.

    Args:
        shares: a byte for each cell, row by row: 0 if nothing is kept there, 255 if all is.
        rows, columns: the shape of the map.

    Raises:
        ValueError: if there are more or fewer shares than cells.
    """
    if len(shares) != rows * columns or not shares:
        raise ValueError(f"Expected {rows} x {columns} shares. Received: {len(shares)}.")
    lines = b"".join(b"\0" + shares[row * columns : (row + 1) * columns] for row in range(rows))
    color = bytes.fromhex(_style.KEPT.removeprefix("#"))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
        (b"PLTE", color * 256),
        (b"tRNS", bytes(range(256))),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(content).decode()
