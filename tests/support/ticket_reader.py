"""A second reader of tickets, written from docs/ticket-format.md alone: slow, one number at a time.

It shares no code with the library. If the library's reading changes, or that of a package it uses, the two differ.
"""

import hashlib
import json
import math
import struct
import zlib

import numpy as np

BLOCK = 2**20


def read(path):
    """Returns (manifest, kernels): the masked kernel of each masked layer by its path, as lists of floats."""
    content = path.read_bytes()
    magic, version, size, packed, _ = struct.unpack("<8sIQII", content[:28])
    assert magic == b"\x89KPT\r\n\x1a\n"
    assert version == 1
    assert size == len(content)
    assert hashlib.sha256(content[:-32]).digest() == content[-32:]
    manifest = json.loads(zlib.decompress(content[28 : 28 + packed], -15))
    place = 28 + packed

    def sections(entry):
        nonlocal place
        parts = []
        for length, check in entry["sections"]:
            parts.append(content[place : place + length])
            assert zlib.crc32(parts[-1]) == check
            place += length
        return parts

    kernels = {entry["layer"]: masked_kernel(entry, *sections(entry)) for entry in manifest["masks"]}
    for entry in (*manifest["tensors"], *manifest["assets"]):
        entry["data"] = sections(entry)[0]
    assert place == len(content) - 32
    return manifest, kernels


def masked_kernel(entry, tables, stream, values):
    size = math.prod(entry["shape"])
    starts = weights = None
    if entry["starts"]:
        scores = drawn(entry["arguments"]["scores_initializer"], entry["fans"], size)
        starts = [magnitude_bin(score, max(map(abs, scores)), 64) for score in scores]
    if entry["from_seed"]:
        kernel = drawn(entry["initializer"], entry["fans"], size)
        largest = max(map(abs, kernel))
        weights = [magnitude_bin(weight, largest, 16) + 16 * (weight < 0) for weight in kernel]
    mask = decoded(tables, stream, entry["shape"], entry["kept"], starts, weights)
    packed = bytes(
        sum(mask[8 * at + bit] << (7 - bit) for bit in range(8) if 8 * at + bit < size) for at in range(-(-size // 8))
    )
    assert hashlib.sha256(packed).hexdigest()[:16] == entry["mask_check"]
    if not entry["from_seed"]:
        kept = iter(tensor(values, entry["kept"], entry["dtype"]))
        return [next(kept) if bit else 0.0 for bit in mask]
    assert entry["dtype"] == "float32"
    assert hashlib.sha256(struct.pack(f"<{size}f", *kernel)).hexdigest()[:16] == entry["kernel_check"]
    return [weight if bit else 0.0 for weight, bit in zip(kernel, mask, strict=True)]


def float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def drawn(initializer, fans, size):
    """The values of two of the initializers."""
    config = initializer["config"]
    words = np.random.Philox(key=config["seed"])
    sigma = math.sqrt(2 / fans[0]) if initializer["class_name"] == "SignedConstant" else math.sqrt(1 / (3 * fans[0]))
    if config["scaled"]:
        sigma /= math.sqrt(config["k"])
    if initializer["class_name"] == "SignedConstant":
        bits = [int(words.random_raw()) for _ in range(-(-size // 64))]
        return [float32(-sigma if bits[at // 64] >> (at % 64) & 1 else sigma) for at in range(size)]
    assert initializer["class_name"] == "ScoreUniform"
    uniform = [(int(words.random_raw()) >> 11) * 2.0**-52 - 1.0 for _ in range(size)]
    return [float32(sigma * (math.sqrt(3) * each)) for each in uniform]


def magnitude_bin(value, largest, bins):
    """floor(bins * |v| / max |v|), each step rounded to float32."""
    if largest <= 1e-30:
        return 0
    return min(int(float32(abs(value) * float32(bins / largest))), bins - 1)


def decoded(tables, stream, shape, kept, starts, weights):
    size = math.prod(shape)
    one = 2**24
    if tables:
        content = [byte - 256 if byte > 127 else byte for byte in zlib.decompress(tables, -15)]
        if content.pop(0) == 0:
            starts = None
        labels = []
        for length in [*shape, *([32] if weights is not None else [])]:
            labels.append(content[:length])
            del content[:length]
        codes = content
    else:
        starts, labels, codes = None, [[0] * length for length in shape], None
        weights = None
    bins = 64 if starts is not None else 1

    def context(at):
        total, rest = 0, at
        for length, table in zip(reversed(shape), reversed(labels[: len(shape)]), strict=True):
            rest, index = divmod(rest, length)
            total += table[index]
        if weights is not None:
            total += labels[-1][weights[at]]
        group = min(max(total, -7), 7) + 7
        return group * bins + (starts[at] if starts is not None else 0)

    words = list(struct.unpack(f"<{len(stream) // 4}I", stream))
    state = words.pop() if words else 0
    if words:
        state = state << 32 | words.pop()
    mask = [0] * size
    for first in range(0, size, BLOCK):
        block = range(first, min(first + BLOCK, size))
        for code, at in sorted((0 if codes is None else codes[context(at)], at) for at in block):
            if codes is None:
                if kept in (0, size):
                    mask[at] = int(kept == size)
                    continue
                units = max(kept * one // size, 1)
            elif code in (-128, 127):
                mask[at] = int(code == 127)
                continue
            else:
                units = round(one / (1 + math.exp(-code / 12)))
            # The least state of a weight that is kept: zeros take the part of [0, 2^24) below, ones that above.
            border = (one - units) * (one - 2) // one + 1
            low = state % one
            if low >= border:
                mask[at] = 1
                state = (state >> 24) * (one - border) + low - border
            else:
                state = (state >> 24) * border + low
            if state < 2**32 and words:
                state = state << 32 | words.pop()
    assert state == 0
    assert not words
    assert sum(mask) == kept
    return mask


def tensor(data, size, dtype):
    """The numbers of a float32 tensor."""
    assert dtype == "float32"
    planes = zlib.decompress(data, -15)
    return struct.unpack(f"<{size}f", bytes(planes[plane * size + at] for at in range(size) for plane in range(4)))
