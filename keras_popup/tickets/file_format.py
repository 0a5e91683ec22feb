"""The bytes of a ticket: a header, a manifest in JSON, the sections that the manifest lists, and a checksum.

A file may come from a stranger. Reading it runs no code of the file, and checks every count before it takes memory for
it. docs/ticket-format.md describes the bytes.
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
from numpy.typing import NDArray

from keras_popup._files import PACK_MAGIC, write_atomically
from keras_popup._fractions import check_k
from keras_popup.tickets import mask_coding

MAX_BYTES = 4 << 30
"""The default limit for the memory that a ticket takes at the peak, in bytes: 4 GiB."""

_MAGIC = b"\x89KPT\r\n\x1a\n"  # not valid text; programs that convert line ends damage it visibly
# A change of the layout of the bytes needs a new version. New versions must still read this one.
VERSION = 1
HEADER = struct.Struct("<8sIQII")  # magic, version; bytes of the file, the manifest, the decompressed manifest
DIGEST = 32  # SHA-256

# The limit for the decompressed manifest: the larger one of _LEAST_MANIFEST bytes and max_bytes // _MANIFEST_SHARE.
_LEAST_MANIFEST = 1 << 20
_MANIFEST_SHARE = 1024

_MOST_AXES = 32

DTYPES = {
    **{name: np.dtype(name) for name in ("float16", "float32", "float64", "bool")},
    **{name: np.dtype(name) for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "complex64": np.dtype("complex64"),
}


class TicketError(ValueError):
    """A file is not a ticket, is damaged, or cannot be read by this version or on this machine."""


@dataclasses.dataclass(frozen=True)
class Mask:
    """A masked kernel: its mask, and the origin of its weights.

    Attributes:
        layer: str, the path of the layer in the model.
        kind: str, the class of the layer, such as "MaskedDense".
        key: str, the key under which the stock layer saves the kernel.
        shape: tuple of ints, the shape of the kernel.
        dtype: str, the dtype of the kernel.
        kept: int, the number of weights that the mask keeps.
        fans: (fan_in, fan_out) with which kernel and scores were initialized.
        initializer: the serialized initializer of the kernel.
        from_seed: bool, whether the initializer gives the kernel. If so, the file holds no weights of it.
        starts: bool, whether the coder may use the initial scores, from `arguments["scores_initializer"]`.
        arguments: the arguments of the masked layer that the stock layer does not have.
        kernel_check: str, checksum of the unpacked kernel.
        mask_check: str, checksum of the unpacked mask.
        tables: bytes, the model of the coded mask.
        stream: bytes, the coded mask.
        values: bytes, the packed kept weights, or b"" if the kernel comes from the seed.
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
        """The seed from which the kernel is drawn. None if it is not drawn from a seed."""
        config = self.initializer.get("config") if isinstance(self.initializer, dict) else None
        seed = config.get("seed") if isinstance(config, dict) else None
        return seed if self.from_seed and type(seed) is int else None

    def __str__(self) -> str:
        return f"the mask of layer '{self.layer}'"

    def check(self) -> None:
        """Raises ValueError if the record cannot be that of a masked kernel."""
        _check_array(self.shape, self.dtype)
        if "float" not in self.dtype:
            raise ValueError(f"a kernel of dtype {self.dtype} cannot be masked")
        if not all(self.shape):
            raise ValueError(f"its shape {self.shape} has no weights")
        if not 0 <= self.kept <= self.size:
            raise ValueError(f"it keeps {self.kept:,} of {self.size:,} weights")
        if len(self.fans) != 2 or min(self.fans) < 1:
            raise ValueError(f"its fans are {self.fans}, not two positive numbers")
        check_number_k(self.arguments.get("k"))
        if self.from_seed and self.seed is None:
            raise ValueError("its kernel must come from a seed, but its initializer has no seed")


def check_number_k(k: Any) -> float:
    """Returns `k` after checking that it is a JSON number in (0, 1]. A text that spells one is none."""
    if not isinstance(k, (int, float)):
        raise ValueError(f"its k is {str(k)[:60]!r}, which is not a number")
    return check_k(k)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A weight that is not a masked kernel.

    Attributes:
        layer: str, the path of the layer.
        name: str, the key under which the layer saves the weight.
        shape: tuple of ints.
        dtype: str.
        data: bytes, the packed values.
    """

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
        """Raises ValueError if the record cannot be that of a weight."""
        _check_array(self.shape, self.dtype)


@dataclasses.dataclass(frozen=True)
class BaseTensor:
    """A weight of a ticket's model that is in the base and not in the file.

    Attributes:
        layer: str, the path of the layer in the ticket's model.
        name: str, the key under which the layer saves the weight.
        shape: tuple of ints.
        dtype: str.
        check: str, the checksum of its values.
    """

    layer: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    check: str


@dataclasses.dataclass(frozen=True)
class BaseWeights:
    """What a ticket takes from a base model, besides the kernels of masks.

    Attributes:
        name: str, the name of the base.
        tensors: tuple of `BaseTensor`.
    """

    name: str
    tensors: tuple[BaseTensor, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "tensors": [[*dataclasses.astuple(tensor)] for tensor in self.tensors]}

    @classmethod
    def from_json(cls, value: Any) -> "BaseWeights":
        """Returns the weights of a manifest. Raises ValueError if they are not described as `to_json` does."""
        if not isinstance(value, dict):
            raise ValueError("what it says of its base is not a JSON object")
        name = get_value(value, "name", str, "its base")
        tensors = []
        for entry in get_value(value, "tensors", list, "its base"):
            texts = (
                [entry[number] for number in (0, 1, 3, 4)] if isinstance(entry, list) and len(entry) == 5 else [None]
            )
            if not all(isinstance(text, str) and text.isprintable() for text in texts):
                raise ValueError(f"its list of weights of the base has the entry {str(entry)[:60]!r}")
            shape = _check_counts(entry[2], "the shape of a weight of the base")
            _check_array(shape, entry[3])
            tensors.append(BaseTensor(entry[0], entry[1], shape, entry[3], entry[4]))
        return cls(name, tuple(tensors))


@dataclasses.dataclass(frozen=True)
class Asset:
    """A file that a layer saves, such as a vocabulary.

    Attributes:
        layer: str, the path of the layer.
        name: str, the name of the file.
        size: int, the size of the file in bytes.
        data: bytes, the compressed file.
    """

    layer: str
    name: str
    size: int
    data: bytes

    DATA: ClassVar = ("data",)

    def __str__(self) -> str:
        return f"the file '{self.name}' of layer '{self.layer}'"

    def check(self) -> None:
        """Raises ValueError if the record cannot be that of a file."""
        if os.path.basename(self.name) != self.name or self.name in ("", ".", "..") or "\\" in self.name:
            raise ValueError("its name is not a valid file name")
        if self.size < 0:
            raise ValueError(f"it has {self.size} bytes")


@dataclasses.dataclass(frozen=True)
class Ticket:
    """The content of a ticket.

    Attributes:
        model: the plain model, serialized by Keras.
        untrainable: paths of the layers that have `trainable = False` in the masked model.
        frozen: dict from paths of layers to the names of their own weights that the masked model does not train.
        made: the origin of the ticket: versions of libraries, and what the user has noted.
        masks: the masked kernels.
        tensors: the other weights.
        assets: the files of layers.
        base: what it takes from a base model; None if it has none.
    """

    model: dict[str, Any]
    untrainable: list[str]
    frozen: dict[str, list[str]]
    made: dict[str, Any]
    masks: tuple[Mask, ...]
    tensors: tuple[Tensor, ...]
    assets: tuple[Asset, ...]
    base: BaseWeights | None = None

    def parts(self) -> Iterator[Mask | Tensor | Asset]:
        """Yields all records, in the order of their sections in the file."""
        yield from self.masks
        yield from self.tensors
        yield from self.assets


# The keys of the manifest: with a value for the whole ticket, and its type; with a list of records, and their class.
_WHOLE: dict[str, Any] = {"model": dict, "untrainable": list, "frozen": dict, "made": dict}
_KINDS: dict[str, Any] = {"masks": Mask, "tensors": Tensor, "assets": Asset}
# The JSON types of the fields of records. All other fields are strings.
_TYPES: dict[str, Any] = {"shape": list, "fans": list, "kept": int, "size": int, "from_seed": bool, "starts": bool}
_TYPES |= {"arguments": dict, "initializer": (dict, str, type(None))}


def write(path: Path, content: bytes) -> None:
    """Writes the bytes of a ticket to a file, completely or not at all."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def to_bytes(ticket: Ticket) -> bytes:
    """Returns the content of a ticket file."""
    manifest: dict[str, Any] = {name: getattr(ticket, name) for name in _WHOLE}
    if ticket.base is not None:  # left out otherwise, so that earlier versions can read the file
        manifest["base"] = ticket.base.to_json()
    for group, kind in _KINDS.items():
        manifest[group] = [
            {
                **{name: getattr(part, name) for name in _list_fields(kind)},
                "sections": [[len(data), zlib.crc32(data)] for data in _list_sections(part)],
            }
            for part in getattr(ticket, group)
        ]
    return seal(_MAGIC, manifest, [data for part in ticket.parts() for data in _list_sections(part)])


def seal(magic: bytes, manifest: dict[str, Any], sections: list[bytes]) -> bytes:
    """Returns the content of a ticket or pack: a header, the manifest, the sections and a checksum of all."""
    text = json.dumps(manifest, separators=(",", ":")).encode()
    packed = mask_coding.deflate(text)
    size = HEADER.size + len(packed) + sum(map(len, sections)) + DIGEST
    content = b"".join([HEADER.pack(magic, VERSION, size, len(packed), len(text)), packed, *sections])
    return content + hashlib.sha256(content).digest()


def read(path: Path, max_bytes: int) -> Ticket:
    """Reads a ticket, and makes all checks that are possible without unpacking the weights.

    Args:
        path: the file.
        max_bytes: int, the limit for the size of the file and for the size of its unpacked weights.

    Raises:
        OSError: if the file cannot be read.
        TicketError: if the file is not a complete ticket, or if it or its unpacked weights exceed `max_bytes`.
        ValueError: if `max_bytes` is not an integer of 0 or more.
    """
    check_max_bytes(max_bytes)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = file.read(HEADER.size)
        _check_header(header, size, max_bytes)
        return from_bytes(header + file.read(size - len(header)), max_bytes)


def check_max_bytes(max_bytes: Any) -> None:
    """Raises ValueError if `max_bytes` is not an integer of 0 or more."""
    if type(max_bytes) is not int or max_bytes < 0:
        raise ValueError(f"`max_bytes` must be an integer, a number of bytes. Received: {max_bytes!r}.")


def check_content(content: bytes, max_bytes: int) -> bytes:
    """Returns the content of a ticket file after a check of its header. Raises what `read` raises."""
    _check_header(content[: HEADER.size], len(content), max_bytes)
    return content


def _check_header(header: bytes, size: int, max_bytes: int) -> None:
    if not header:
        raise TicketError("not a ticket: the file is empty")
    if header.startswith(b"PK\x03\x04"):
        raise TicketError("not a ticket: it is a ZIP archive, like .keras files")
    if header.startswith(PACK_MAGIC):
        raise TicketError("it is a pack of several tickets. Load it with keras_popup.TaskMasks.load")
    if not header.startswith(_MAGIC):
        raise TicketError(f"not a ticket: wrong magic bytes {header[:8]!r}, expected {_MAGIC!r}")
    check_start(header, size, max_bytes)


def check_start(header: bytes, size: int, max_bytes: int) -> None:
    """Checks what follows the magic bytes in the header of a ticket or pack. Raises what `read` raises."""
    if len(header) < HEADER.size:
        raise TicketError(f"it is cut off inside its header: it has only {size} bytes")
    _, version, *_ = HEADER.unpack(header)
    if version != VERSION:
        raise TicketError(
            f"it has version {version} of the format, and this keras_popup reads version {VERSION}. If the file "
            "is not damaged, a newer keras_popup may read it: pip install --upgrade keras-popup"
        )
    if size > max_bytes:
        raise TicketError(f"it has {size:,} bytes, more than max_bytes={max_bytes:,}. Raise max_bytes if you trust it")


def from_bytes(content: bytes, max_bytes: int, *, needs_masks: bool = True) -> Ticket:
    """Returns the ticket in the content of a file with a checked header. Raises what `read` raises.

    With `needs_masks=False`, it may be a model without masks: the base in a pack.
    """
    size = len(content)
    *_, expected, packed_size, text_size = HEADER.unpack(content[: HEADER.size])
    damage = ""
    if size < expected:
        damage = f". The file is cut off: it has {size:,} of {expected:,} bytes"
    elif size > expected:
        damage = f". The file has {size:,} bytes, but the last {size - expected:,} do not belong to it"
    elif hashlib.sha256(content[:-DIGEST]).digest() != content[-DIGEST:]:
        damage = ". The file was changed after it was written: its checksum does not match"
    try:
        if text_size > (limit := max(_LEAST_MANIFEST, max_bytes // _MANIFEST_SHARE)):
            raise ValueError(f"its manifest has {text_size:,} bytes, but max_bytes={max_bytes:,} allows {limit:,}")
        text = mask_coding.inflate(content[HEADER.size : HEADER.size + packed_size], text_size)
        ticket, end = _parse(json.loads(text), content, HEADER.size + packed_size, max_bytes)
        if needs_masks and not ticket.masks:
            raise ValueError("it has no masks")
        if not damage and end + DIGEST != size:
            raise ValueError(f"its sections end at byte {end:,}, but it has {size:,} bytes")
    except RecursionError:
        raise TicketError(f"its manifest is nested too deeply{damage}") from None
    except ValueError as error:
        raise TicketError(f"{error}{damage}") from None
    if damage:
        raise TicketError(f"it is damaged{damage}")
    return ticket


def _parse(manifest: Any, content: bytes, offset: int, max_bytes: int) -> tuple[Ticket, int]:
    """Parses a manifest.

    Args:
        manifest: decoded JSON.
        content: the content of the file, with the sections.
        offset: int, the position of the first section.
        max_bytes: as in `read`.

    Returns:
        The ticket, and the position after its last section.

    Raises:
        ValueError: if the manifest or a section is not valid.
    """
    if not isinstance(manifest, dict):
        raise ValueError("its manifest is not a JSON object")
    whole: dict[str, Any] = {name: get_value(manifest, name, kind, "its manifest") for name, kind in _WHOLE.items()}
    whole["base"] = BaseWeights.from_json(manifest["base"]) if "base" in manifest else None
    name = get_value(whole["model"], "config", dict, "its model").get("name", "")
    if not isinstance(name, str) or not name.isprintable():
        raise ValueError(f"its model has the name {str(name)[:60]!r}")
    if not all(isinstance(layer, str) for layer in whole["untrainable"]):
        raise ValueError("its list of layers that are not trained has an item that is not a path")
    for layer, names in whole["frozen"].items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"the list of frozen weights of layer '{layer}' has an item that is not a name")
    total = 0
    groups: dict[str, Any] = {}
    for group, kind in _KINDS.items():
        groups[group] = []
        for number, entry in enumerate(get_value(manifest, group, list, "its manifest")):
            where = f"entry {number} of {group}"
            if not isinstance(entry, dict):
                raise ValueError(f"{where} is not a JSON object")
            values = {name: get_value(entry, name, _TYPES.get(name, str), where) for name in _list_fields(kind)}
            for name in ("shape", "fans"):
                if name in values:
                    values[name] = _check_counts(values[name], f"`{name}` of {where}")
            part = kind(**values, **dict.fromkeys(kind.DATA, b""))
            try:
                part.check()
            except ValueError as error:
                raise ValueError(f"{part}: {error}") from None
            # Kernels are drawn in float32, even if their dtype is smaller.
            total += part.size * (1 if kind is Asset else max(DTYPES[part.dtype].itemsize, 4 if kind is Mask else 1))
            if total > max_bytes:
                raise ValueError(
                    f"{part} and the records before it would take {total:,} bytes unpacked, more than "
                    f"max_bytes={max_bytes:,}. Raise max_bytes if you trust the file"
                )
            data = {}
            sections = get_value(entry, "sections", list, where)
            if len(sections) != len(kind.DATA):
                raise ValueError(f"{part} has {len(sections)} sections, not {len(kind.DATA)}")
            for name, section in zip(kind.DATA, sections, strict=True):
                length, check = _check_counts(section, f"`sections` of {where}", 2)
                end = offset + length
                data[name] = content[offset:end]
                if len(data[name]) != length or end > len(content):
                    raise ValueError(f"{part} would end at byte {end:,}, after the end of the file")
                if zlib.crc32(data[name]) != check:
                    raise ValueError(f"{part} does not match its checksum, at bytes {offset:,} to {end:,}")
                offset = end
            groups[group].append(dataclasses.replace(part, **data))
    whole |= {group: tuple(parts) for group, parts in groups.items()}
    return Ticket(**whole), offset


def get_value(entry: dict[str, Any], name: str, kind: Any, where: str) -> Any:
    """Returns a value of a JSON object, after a check of its type."""
    value = entry.get(name)
    if (
        not isinstance(value, kind)
        or (kind is int and isinstance(value, bool))
        or (isinstance(value, str) and not value.isprintable())
    ):
        raise ValueError(f"{where} has no valid `{name}`: {str(value)[:60]!r}")
    return value


def printable(text: str) -> str:
    """Returns `text` without control characters for a terminal, except line ends."""
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


def _check_counts(value: Any, what: str, length: int | None = None) -> tuple[int, ...]:
    """Returns a JSON list as a tuple, after a check that it has integers in [0, 2**63) only."""
    if not isinstance(value, list) or not all(type(count) is int and 0 <= count < 1 << 63 for count in value):
        raise ValueError(f"{what} is not a list of counts: {str(value)[:60]!r}")
    if length is not None and len(value) != length:
        raise ValueError(f"{what} has {len(value)} numbers, not {length}")
    return tuple(value)


def _list_fields(kind: Any) -> list[str]:
    """Returns the names of the fields of a record class, without those with the bytes of sections."""
    return [field.name for field in dataclasses.fields(kind) if field.name not in kind.DATA]


def _list_sections(part: Mask | Tensor | Asset) -> list[bytes]:
    return [getattr(part, name) for name in part.DATA]


def _check_array(shape: tuple[int, ...], dtype: str) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"its dtype {dtype[:60]!r} is not one of {', '.join(DTYPES)}")
    if len(shape) > _MOST_AXES:
        raise ValueError(f"its shape has {len(shape)} axes, more than {_MOST_AXES}")


def bytes_of(shape: tuple[int, ...], dtype: str) -> int:
    """Returns the memory that an array takes, in bytes."""
    return math.prod(shape) * (DTYPES[dtype].itemsize if dtype in DTYPES else 8)


def array(tensor: Tensor) -> NDArray[Any]:
    """Returns the array of a record.

    Raises:
        TicketError: if `pack` did not write its bytes, for its shape and dtype.
    """
    try:
        return unpack(tensor.data, tensor.shape, tensor.dtype)
    except ValueError as error:
        raise TicketError(f"{tensor}: {error}") from None


def content(asset: Asset) -> bytes:
    """Returns the content of the file of a record. Raises TicketError if its bytes are not valid."""
    try:
        return mask_coding.inflate(asset.data, asset.size)
    except ValueError as error:
        raise TicketError(f"{asset}: {error}") from None


def checksum(array: NDArray[Any]) -> str:
    """Returns a checksum of the values of an array: 16 hexadecimal digits."""
    return hashlib.sha256(_to_little_endian(array).data).hexdigest()[:16]


def pack(array: NDArray[Any]) -> bytes:
    """Returns the values of an array, compressed without loss.

    The first bytes of all values come first, then all second bytes, and so on. Exponents of weights are similar, so
    they compress well next to each other.
    """
    width = array.dtype.itemsize
    planes = _to_little_endian(array).view(np.uint8).reshape(-1, width).T
    # Z_RLE: code runs and frequencies only. Other repetitions in weights are chance, and searching for them is slow.
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_RLE)
    return compressor.compress(planes.tobytes()) + compressor.flush()


def unpack(packed: bytes, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Returns an array from packed bytes: the inverse of `pack`.

    Raises:
        CodingError: if `pack` did not write these bytes, for this shape and dtype.
    """
    kind = DTYPES[dtype]
    size = math.prod(shape)
    planes = np.frombuffer(mask_coding.inflate(packed, size * kind.itemsize), np.uint8).reshape(kind.itemsize, size)
    values = (
        np.ascontiguousarray(planes.T)
        .reshape(-1)
        .view(_find_unsigned_dtype(kind, "<"))
        .astype(_find_unsigned_dtype(kind, "="))
    )
    unpacked: NDArray[Any] = values.view(kind).reshape(shape)
    return unpacked


def _to_little_endian(array: NDArray[Any]) -> NDArray[Any]:
    """Returns the values of an array as flat, little-endian unsigned integers, if possible without a copy."""
    flat = np.ascontiguousarray(array).reshape(-1)
    flat = flat.astype(flat.dtype.newbyteorder("="), copy=False)
    return flat.view(_find_unsigned_dtype(flat.dtype, "=")).astype(_find_unsigned_dtype(flat.dtype, "<"), copy=False)


def _find_unsigned_dtype(dtype: np.dtype[Any], order: str) -> np.dtype[Any]:
    """Returns the unsigned integer dtype of the same width. NumPy cannot swap the bytes of every dtype."""
    return np.dtype(f"{order}u{dtype.itemsize}")
