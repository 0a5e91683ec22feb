"""A ticket, taken apart and put together again with something else in it."""

import hashlib
import json
import struct
import zlib

import keras
from damage import edit

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


def edited(content, rng):
    """A ticket one value of whose manifest is another, sealed again."""
    manifest, sections = opened(content)
    edit(manifest, rng)
    return sealed(manifest, sections)
