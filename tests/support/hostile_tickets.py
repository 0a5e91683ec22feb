"""A ticket, taken apart and put together again with something else in it."""

import copy
import hashlib
import json
import struct
import zlib

import keras

from keras_popup import mask_model

HEADER = struct.Struct("<8sIQII")


def small_network():
    stack = [
        keras.Input((6, 6, 2)),
        keras.layers.Conv2D(40, 3, name="conv"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(7, name="learned"),
        keras.layers.Dense(4, name="classes"),
    ]
    return mask_model(keras.Sequential(stack, name="small"), k=0.4, exclude="learned", seed=1)


def weights_of(model):
    return [weight.numpy().tobytes() for weight in model.weights]


def opened(content):
    """(manifest, sections in order)."""
    *_, packed, _ = HEADER.unpack(content[: HEADER.size])
    return json.loads(zlib.decompress(content[HEADER.size : HEADER.size + packed], -15)), content[
        HEADER.size + packed : -32
    ]


def sealed(manifest, sections, version=1, magic=b"\x89KPT\r\n\x1a\n"):
    """A ticket whose checksums are right, whatever is in it."""
    text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = compressor.compress(text) + compressor.flush()
    size = HEADER.size + len(packed) + len(sections) + 32
    content = HEADER.pack(magic, version, size, len(packed), len(text)) + packed + sections
    return content + hashlib.sha256(content).digest()


def change(content, edit):
    manifest, sections = opened(content)
    text = edit(manifest)
    return sealed(text if isinstance(text, bytes) else manifest, sections)


def damage(content, rng):
    """A file that is not what was written."""
    content = bytearray(content)
    how = rng.choice(["bit", "byte", "cut", "extend", "swap", "zero", "insert", "repeat"])
    at = rng.randrange(len(content))
    if how == "bit":
        content[at] ^= 1 << rng.randrange(8)
    elif how == "byte":
        content[at] = (content[at] + rng.randrange(1, 256)) % 256
    elif how == "cut":
        del content[at:]
    elif how == "extend":
        content += rng.randbytes(rng.randrange(1, 50))
    elif how == "swap":
        length = rng.randrange(1, 40)
        other = rng.randrange(len(content))
        content[at : at + length], content[other : other + length] = (
            content[other : other + length],
            content[at : at + length],
        )
    elif how == "zero":
        content[at : at + 16] = bytes(len(content[at : at + 16]))
    elif how == "insert":
        content[at:at] = rng.randbytes(rng.randrange(1, 9))
    else:
        content[at:at] = content[at : at + 30]
    return bytes(content)


NASTY = [
    *[None, True, False, 0, 1, -1, 2, 7, 10**4, 10**6, 2**31, 2**40, 2**63, 10**30, 0.5, -0.5, 1e308, float("nan")],
    *["", "x", "float32", "conv", "../../x", "\x1b[2J", "MaskedDense", "keras", "os", "system", "__lambda__", "1"],
    *[[], {}, [0], [1, 2, 3], [[1, 2]], {"a": 1}, {"class_name": "Dense", "config": {"units": 10**6}}],
]


def edited(content, rng):
    """A ticket one value of whose manifest is another, sealed again."""
    manifest, sections = opened(content)
    edit(manifest, rng)
    return sealed(manifest, sections)


def edit(manifest, rng):
    """Changes one value of a manifest."""
    here, key = {"": manifest}, ""
    while isinstance(here[key], (dict, list)) and here[key] and (rng.random() < 0.9 or here[key] is manifest):
        here = here[key]
        key = rng.choice(list(here) if isinstance(here, dict) else range(len(here)))
    how = rng.choice(["replace", "replace", "remove", "number"])
    if how == "remove":
        del here[key]
    elif how == "number" and type(here[key]) is int:
        here[key] = max(0, here[key] + rng.choice([-1, 1, 8, 2**20, here[key]]))
    else:
        here[key] = copy.deepcopy(rng.choice(NASTY))
