"""The bytes of a ticket: a header, a manifest in JSON, the sections it lists, a checksum.

Whatever a stranger has put into a file, reading it runs nothing of it, and takes no memory for a count before
that has been checked. docs/tickets.md describes the bytes.
"""

import dataclasses
import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import ml_dtypes
import numpy as np

from keras_popup._files import write_atomically
from keras_popup.tickets import mask_coding

MAX_BYTES = 1 << 30
"""How much the weights of a ticket may take unpacked, if nothing else is said: 1 GiB."""

_MAGIC = b"\x89KPT\r\n\x1a\n"  # not text, and damaged by what converts line ends
# A change of the layout of the bytes needs a new version, which must read this one too.
_VERSION = 1
_HEADER = struct.Struct("<8sIQII")  # magic, version, bytes of the file, of the manifest, of it decompressed
_DIGEST = 32  # SHA-256

# How long the manifest may be, as text: this, or a part of the memory allowed.
_LEAST_MANIFEST = 1 << 20
_MANIFEST_SHARE = 256

_MOST_AXES = 32

DTYPES = {
    **{name: np.dtype(name) for name in ("float16", "float32", "float64", "bool")},
    **{name: np.dtype(name) for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "complex64": np.dtype("complex64"),
}


class TicketError(ValueError):
    """A file is no ticket, or a damaged one, or one that this version or machine cannot read."""


@dataclasses.dataclass(frozen=True)
class Mask:
    """A masked layer: its mask, and where its kernel comes from.

    Attributes:
        layer: str, its path in the model.
        kind: str, its class, such as "MaskedDense".
        key: str, under which the stock layer saves its kernel.
        shape, dtype: of the kernel.
        kept: int, how many weights the mask keeps.
        fans: (fan_in, fan_out) that kernel and scores were initialized with.
        initializer: the kernel's, serialized.
        from_seed: bool, whether the kernel is that of the initializer, so that no weight is in the file.
        starts: bool, whether the coder may know the initial scores: those of `arguments["scores_initializer"]`.
        arguments: what a masked layer is given that the stock layer is not.
        kernel_check, mask_check: str, checksums of what is unpacked.
        tables, stream: the coded mask.
        values: the weights kept, of a kernel that is not from the seed.
    """

    layer: str
    kind: str
    key: str
    shape: tuple[int, ...]
    dtype: str
    kept: int
    fans: tuple[int, int]
    initializer: Any
    from_seed: bool
    starts: bool
    arguments: dict[str, Any]
    kernel_check: str
    mask_check: str
    tables: bytes
    stream: bytes
    values: bytes

    DATA: ClassVar = ("tables", "stream", "values")

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def seed(self) -> int | None:
        """The seed that the kernel is drawn from, None if it is not."""
        config = self.initializer.get("config") if isinstance(self.initializer, dict) else None
        seed = config.get("seed") if isinstance(config, dict) else None
        return seed if self.from_seed and type(seed) is int else None

    def __str__(self) -> str:
        return f"the mask of layer '{self.layer}'"

    def check(self) -> None:
        _check_array(self.shape, self.dtype)
        if "float" not in self.dtype:
            raise ValueError(f"a kernel of type {self.dtype} cannot be masked")
        if not all(self.shape):
            raise ValueError(f"the shape {self.shape} has no weights")
        if not 0 <= self.kept <= self.size:
            raise ValueError(f"it keeps {self.kept:,} of {self.size:,} weights")
        if len(self.fans) != 2 or min(self.fans) < 1:
            raise ValueError(f"the fans are {self.fans}, not two positive numbers")
        if not isinstance(k := self.arguments.get("k"), (int, float)) or not 0 < k <= 1:
            raise ValueError(f"its k is {str(k)[:60]!r}")
        if self.from_seed and self.seed is None:
            raise ValueError("its kernel is to come from a seed, and there is none")


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Another weight, named as its layer saves it."""

    layer: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    data: bytes

    DATA: ClassVar = ("data",)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"weight '{self.name}' of layer '{self.layer}'"

    def check(self) -> None:
        _check_array(self.shape, self.dtype)


@dataclasses.dataclass(frozen=True)
class Asset:
    """A file that a layer saves, such as a vocabulary."""

    layer: str
    name: str
    size: int
    data: bytes

    DATA: ClassVar = ("data",)

    def __str__(self) -> str:
        return f"the file '{self.name}' of layer '{self.layer}'"

    def check(self) -> None:
        if os.path.basename(self.name) != self.name or self.name in ("", ".", "..") or "\\" in self.name:
            raise ValueError("its name is not that of a file")
        if self.size < 0:
            raise ValueError(f"it has {self.size} bytes")


@dataclasses.dataclass(frozen=True)
class Ticket:
    """What is in a ticket.

    Attributes:
        model: the plain model, as Keras serializes it.
        untrainable: paths of the masked model's layers whose `trainable` is False.
        frozen: by a layer's path, the names of its own weights that the masked model does not train.
        made: where it comes from: versions, and what the user has said.
    """

    model: dict[str, Any]
    untrainable: list[str]
    frozen: dict[str, list[str]]
    made: dict[str, Any]
    masks: tuple[Mask, ...]
    tensors: tuple[Tensor, ...]
    assets: tuple[Asset, ...]

    def parts(self) -> Iterator[Any]:
        """Yields all that has sections, in the order of these in the file."""
        yield from (*self.masks, *self.tensors, *self.assets)


_WHOLE: dict[str, Any] = {"model": dict, "untrainable": list, "frozen": dict, "made": dict}
_KINDS: dict[str, Any] = {"masks": Mask, "tensors": Tensor, "assets": Asset}
_TYPES: dict[str, Any] = {"shape": list, "fans": list, "kept": int, "size": int, "from_seed": bool, "starts": bool}
_TYPES |= {"arguments": dict, "initializer": (dict, str, type(None))}


def write(path: Path, content: bytes) -> None:
    """Writes the bytes of a ticket, all of them or none."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def to_bytes(ticket: Ticket) -> bytes:
    """Returns the bytes of a ticket."""
    manifest: dict[str, Any] = {name: getattr(ticket, name) for name in _WHOLE}
    for group, kind in _KINDS.items():
        manifest[group] = [
            {
                **{name: getattr(part, name) for name in _fields(kind)},
                "sections": [[len(data), zlib.crc32(data)] for data in _sections(part)],
            }
            for part in getattr(ticket, group)
        ]
    text = json.dumps(manifest, separators=(",", ":")).encode()
    packed = mask_coding.deflate(text)
    sections = [data for part in ticket.parts() for data in _sections(part)]
    size = _HEADER.size + len(packed) + sum(map(len, sections)) + _DIGEST
    content = b"".join([_HEADER.pack(_MAGIC, _VERSION, size, len(packed), len(text)), packed, *sections])
    return content + hashlib.sha256(content).digest()


def read(path: Path, max_bytes: int) -> Ticket:
    """Reads a ticket, and checks all of it that can be checked without unpacking the weights.

    Raises:
        OSError: if the file cannot be read.
        TicketError: if it is not a whole ticket, or is larger than `max_bytes` or would be, unpacked.
        ValueError: if `max_bytes` is no count.
    """
    if type(max_bytes) is not int or max_bytes < 0:
        raise ValueError(f"`max_bytes` must be an integer, a number of bytes. Received: {max_bytes!r}.")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = file.read(_HEADER.size)
        _check_header(header, size, max_bytes)
        return from_bytes(header + file.read(size - len(header)), max_bytes)


def _check_header(header: bytes, size: int, max_bytes: int) -> None:
    if header.startswith(b"PK\x03\x04"):
        raise TicketError("it is a ZIP archive, as .keras files are, and no ticket")
    if not header.startswith(_MAGIC):
        raise TicketError(f"it is none: it begins with {header[:8]!r}, not {_MAGIC!r}")
    if len(header) < _HEADER.size:
        raise TicketError(f"it is cut off in its header: it has {size} bytes")
    _, version, *_ = _HEADER.unpack(header)
    if version != _VERSION:
        raise TicketError(
            f"it has version {version} of the format, and this keras_popup reads version {_VERSION}. If the file "
            "is whole, a newer one may read it: pip install --upgrade keras-popup"
        )
    if size > max_bytes:
        raise TicketError(f"it has {size:,} bytes, and max_bytes={max_bytes:,}. Raise that if you trust it")


def from_bytes(content: bytes, max_bytes: int) -> Ticket:
    """Returns the ticket of a file's content, whose header is a good one. Raises as `read` does."""
    size = len(content)
    *_, expected, packed_size, text_size = _HEADER.unpack(content[: _HEADER.size])
    damage = ""
    if size < expected:
        damage = f". The file is cut off: it has {size:,} of {expected:,} bytes"
    elif size > expected:
        damage = f". The file has {size:,} bytes, of which the last {size - expected:,} do not belong to it"
    elif hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
        damage = ". The file was changed after it was written: its checksum does not match"
    try:
        if text_size > (limit := max(_LEAST_MANIFEST, max_bytes // _MANIFEST_SHARE)):
            raise ValueError(f"its manifest has {text_size:,} bytes, and max_bytes={max_bytes:,} allows {limit:,}")
        text = mask_coding.inflate(content[_HEADER.size : _HEADER.size + packed_size], text_size)
        ticket, end = _taken_apart(json.loads(text), content, _HEADER.size + packed_size, max_bytes)
        if not damage and end + _DIGEST != size:
            raise ValueError(f"its parts end at byte {end:,}, and it has {size:,} bytes")
    except RecursionError:
        raise TicketError(f"its manifest is nested too deeply{damage}") from None
    except ValueError as error:
        raise TicketError(f"{error}{damage}") from None
    if damage:
        raise TicketError(f"it is damaged{damage}")
    return ticket


def _taken_apart(manifest: Any, content: bytes, place: int, max_bytes: int) -> tuple[Ticket, int]:
    """Returns the ticket of a manifest, with its sections from `content`, and where they end."""
    if not isinstance(manifest, dict):
        raise ValueError("its manifest is no JSON object")
    whole: dict[str, Any] = {name: _taken(manifest, name, kind, "its manifest") for name, kind in _WHOLE.items()}
    name = _taken(whole["model"], "config", dict, "its model").get("name", "")
    if not isinstance(name, str) or not name.isprintable():
        raise ValueError(f"its model has the name {str(name)[:60]!r}")
    if not _taken(manifest, "masks", list, "its manifest"):
        raise ValueError("it has no masks")
    if not all(isinstance(layer, str) for layer in whole["untrainable"]):
        raise ValueError("its list of layers that are not trained holds something else than paths")
    for layer, names in whole["frozen"].items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"the list of frozen weights of layer '{layer}' holds something else than names")
    total = 0
    groups: dict[str, Any] = {}
    for group, kind in _KINDS.items():
        groups[group] = []
        for number, entry in enumerate(_taken(manifest, group, list, "its manifest")):
            where = f"entry {number} of {group}"
            if not isinstance(entry, dict):
                raise ValueError(f"{where} is no JSON object")
            values = {name: _taken(entry, name, _TYPES.get(name, str), where) for name in _fields(kind)}
            for name in ("shape", "fans"):
                if name in values:
                    values[name] = _numbers(values[name], f"`{name}` of {where}")
            part = kind(**values, **dict.fromkeys(kind.DATA, b""))
            try:
                part.check()
            except ValueError as error:
                raise ValueError(f"{part}: {error}") from None
            # Kernels are drawn in float32, whatever they become.
            total += part.size * (1 if kind is Asset else max(DTYPES[part.dtype].itemsize, 4 if kind is Mask else 1))
            if total > max_bytes:
                raise ValueError(
                    f"{part} and what stands before it would take {total:,} bytes unpacked, and "
                    f"max_bytes={max_bytes:,}. Raise that if you trust the file"
                )
            data = {}
            sections = _taken(entry, "sections", list, where)
            if len(sections) != len(kind.DATA):
                raise ValueError(f"{part} has {len(sections)} sections, not {len(kind.DATA)}")
            for name, section in zip(kind.DATA, sections, strict=True):
                length, check = _numbers(section, f"`sections` of {where}", 2)
                data[name] = content[place : place + length]
                if len(data[name]) != length or place + length > len(content):
                    raise ValueError(f"{part} is to end at byte {place + length:,}, behind the end of the file")
                if zlib.crc32(data[name]) != check:
                    raise ValueError(f"{part} does not match its checksum, at bytes {place:,} to {place + length:,}")
                place += length
            groups[group].append(dataclasses.replace(part, **data))
    whole |= {group: tuple(parts) for group, parts in groups.items()}
    return Ticket(**whole), place


def _taken(entry: dict[str, Any], name: str, kind: Any, where: str) -> Any:
    value = entry.get(name)
    if (
        not isinstance(value, kind)
        or (kind is int and isinstance(value, bool))
        or (isinstance(value, str) and not value.isprintable())
    ):
        raise ValueError(f"{where} has no proper `{name}`: {str(value)[:60]!r}")
    return value


def printable(text: str) -> str:
    """Returns text in which nothing moves the cursor of a terminal, but to the next line."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _numbers(value: Any, what: str, length: int | None = None) -> tuple[int, ...]:
    """Returns a JSON list of integers of 0 to 2**63."""
    if not isinstance(value, list) or not all(type(each) is int and 0 <= each < 1 << 63 for each in value):
        raise ValueError(f"{what} is no list of counts: {str(value)[:60]!r}")
    if length is not None and len(value) != length:
        raise ValueError(f"{what} has {len(value)} numbers, not {length}")
    return tuple(value)


def _fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.name not in kind.DATA]


def _sections(part: Any) -> list[bytes]:
    return [getattr(part, name) for name in part.DATA]


def _check_array(shape: tuple[int, ...], dtype: str) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"the type {dtype[:60]!r} is not one of {', '.join(DTYPES)}")
    if len(shape) > _MOST_AXES:
        raise ValueError(f"the shape has {len(shape)} axes")


def bytes_of(shape: tuple[int, ...], dtype: str) -> int:
    """Returns the memory that an array takes."""
    return math.prod(shape) * (DTYPES[dtype].itemsize if dtype in DTYPES else 8)


def array(tensor: Tensor) -> Any:
    """Returns the array of a record.

    Raises:
        TicketError: if its bytes were not written by `pack` for its shape and type.
    """
    try:
        return unpack(tensor.data, tensor.shape, tensor.dtype)
    except ValueError as error:
        raise TicketError(f"{tensor}: {error}") from None


def content(asset: Asset) -> bytes:
    """Returns the file of a record, as `array` does."""
    try:
        return mask_coding.inflate(asset.data, asset.size)
    except ValueError as error:
        raise TicketError(f"{asset}: {error}") from None


def checksum(array: Any) -> str:
    """Returns 16 hexadecimal digits of an array's values."""
    return hashlib.sha256(_little_endian(array)).hexdigest()[:16]


def pack(array: Any) -> bytes:
    """Returns the values of an array, compressed without loss.

    The first bytes of all values come first, then the second ones, and so on: exponents are alike, and
    compress well next to each other.
    """
    width = array.dtype.itemsize
    planes = _little_endian(array).view(np.uint8).reshape(-1, width).T
    # Runs and frequencies only: what repeats at a distance in numbers does so by chance, and takes long to find.
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_RLE)
    return compressor.compress(planes.tobytes()) + compressor.flush()


def unpack(packed: bytes, shape: tuple[int, ...], dtype: str) -> Any:
    """Returns an array: the inverse of `pack`.

    Raises:
        CodingError: if the bytes were not written by `pack` for this shape and type.
    """
    kind = DTYPES[dtype]
    size = math.prod(shape)
    planes = np.frombuffer(mask_coding.inflate(packed, size * kind.itemsize), np.uint8).reshape(kind.itemsize, size)
    values = np.ascontiguousarray(planes.T).reshape(-1).view(_unsigned(kind, "<")).astype(_unsigned(kind, "="))
    return values.view(kind).reshape(shape)


def _little_endian(array: Any) -> Any:
    """Returns the bytes of an array's values as flat unsigned integers, without a copy where they are so already."""
    flat = np.ascontiguousarray(array).reshape(-1)
    flat = flat.astype(flat.dtype.newbyteorder("="), copy=False)
    return flat.view(_unsigned(flat.dtype, "=")).astype(_unsigned(flat.dtype, "<"), copy=False)


def _unsigned(dtype: Any, order: str) -> Any:
    """Returns the unsigned integer type of a type's width: NumPy cannot swap the bytes of all types."""
    return np.dtype(f"{order}u{dtype.itemsize}")
