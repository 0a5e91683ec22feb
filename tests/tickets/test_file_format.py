"""The bytes of a ticket: as documented, checked, written as a whole."""

import signal
import subprocess
import sys
import textwrap
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import ticket_reader
from hostile_tickets import opened, sealed
from ticket_checks import disturb

from keras_popup import load_ticket, mask_model, models, save_ticket, strip_masks, tickets
from keras_popup.tickets import TicketError, file_format

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.rare  # `make test` has the next one
def test_read_and_a_reader_written_from_the_documentation():
    manifest, kernels = ticket_reader.read(GOLDEN / "digits-v1.ticket")
    model = load_ticket(GOLDEN / "digits-v1.ticket")
    assert [layer["config"]["name"] for layer in manifest["model"]["config"]["layers"][1:]] == [
        layer.name for layer in model.layers
    ]
    for name, kernel in kernels.items():
        np.testing.assert_array_equal(model.get_layer(name).kernel.numpy().ravel(), np.float32(kernel))
    for entry in manifest["tensors"]:
        store = {}
        model.get_layer(entry["layer"]).save_own_variables(store)
        values = ticket_reader.tensor(entry["data"], int(np.prod(entry["shape"])), entry["dtype"])
        np.testing.assert_array_equal(store[entry["name"]].numpy().ravel(), np.float32(values))


def test_write_is_understood_by_the_documented_reader(tmp_path):
    model = mask_model(models.Conv2(width=0.1, input_shape=(8, 8, 3)), k=0.3, seed=1)
    disturb(model)
    plain = strip_masks(model)
    save_ticket(model, tmp_path / "a.ticket")
    for name, kernel in ticket_reader.read(tmp_path / "a.ticket")[1].items():
        np.testing.assert_array_equal(plain.get_layer(name).kernel.numpy().ravel(), np.float32(kernel))


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "..", "a/b", "a\\b", ""])
def test_read_refuses_assets_outside_of_their_folder(original, name, tmp_path):
    manifest, sections = opened(original[0])
    data = b"\x03\x00"
    manifest["assets"] = [{"layer": "conv", "name": name, "size": 0, "sections": [[len(data), zlib.crc32(data)]]}]
    (tmp_path / "x.ticket").write_bytes(sealed(manifest, sections + data))
    with pytest.raises(TicketError, match="its name is not a valid file name"):
        load_ticket(tmp_path / "x.ticket")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "the file is empty"),
        (b"PK\x03\x04" + bytes(100), "it is a ZIP archive, like .keras files"),
        (b"\x89KPT\r\n\x1a\n", "cut off inside its header"),
        (b"\x89KPT\n\x1a\n" + bytes(100), "wrong magic bytes"),
    ],
)
def test_read_says_what_other_files_are(content, match, tmp_path):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(TicketError, match=match):
        tickets.ticket_info(tmp_path / "x")
    with pytest.raises(OSError, match=r"[Nn]o such|directory"):
        load_ticket(tmp_path / "missing")
    with pytest.raises(OSError, match=r"[Dd]irectory"):
        load_ticket(tmp_path)


def test_read_names_the_place_of_an_error(original, tmp_path):
    """Of what is damaged, the layer; of what is cut off, where and how much."""
    content, _ = original
    manifest, sections = opened(content)
    path, start = tmp_path / "x.ticket", len(content) - 32 - len(sections)
    for group, what in (("masks", "the mask of layer '{layer}'"), ("tensors", "weight '{name}' of layer '{layer}'")):
        for entry in manifest[group]:
            for length, _ in entry["sections"]:
                if length:
                    where = what.format(**entry)
                    path.write_bytes(content[:start] + bytes([content[start] ^ 1]) + content[start + 1 :])
                    with pytest.raises(TicketError, match=f"{where} does not match its checksum"):
                        load_ticket(path)
                    path.write_bytes(content[: start + length - 1])
                    with pytest.raises(TicketError, match=f"{where} .*cut off: it has .* of {len(content):,} bytes"):
                        load_ticket(path)
                start += length
    path.write_bytes(content + b"\0")
    with pytest.raises(TicketError, match="the last 1 do not belong to it"):
        load_ticket(path)
    path.write_bytes(sealed(manifest, sections, version=2))
    with pytest.raises(TicketError, match=r"version 2 of the format, and this keras_popup reads version 1.*upgrade"):
        load_ticket(path)


WRITER = """
    import itertools, sys
    from pathlib import Path
    from keras_popup.tickets import file_format
    path = Path(sys.argv[1])
    ticket = file_format.read(path, file_format.MAX_BYTES)
    print("ready", flush=True)
    for number in itertools.count():
        ticket.made["notes"] = [number, "x" * 3_000_000]
        file_format.write(path, file_format.to_bytes(ticket))
"""


@pytest.mark.integration
@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.rare)])
def test_write_that_is_killed_leaves_a_whole_file(original, kills, tmp_path):
    path = tmp_path / "x.ticket"
    path.write_bytes(original[0])
    numbers = []
    for delay in np.linspace(0.12, 0.0, kills):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout.readline() == "ready\n"
        time.sleep(0.05 + delay)
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=60)
        notes = file_format.read(path, file_format.MAX_BYTES).made.get("notes", [-1])
        numbers.append(notes[0])
    assert max(numbers) >= 0  # something was written in between


@pytest.mark.parametrize("dtype", sorted(file_format.DTYPES))
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5)])
def test_unpack_gives_tensors_back_in_any_byte_order(dtype, shape):
    kind = file_format.DTYPES[dtype]
    values = (np.random.default_rng(1).normal(size=shape) * 9).astype(kind)
    packed = file_format.pack(values)
    back = file_format.unpack(packed, shape, dtype)
    assert back.dtype == kind
    np.testing.assert_array_equal(back, values)
    if dtype != "bfloat16":  # NumPy has no other order of it
        swapped = values.astype(kind.newbyteorder())
        assert file_format.pack(swapped) == packed
        assert file_format.checksum(swapped) == file_format.checksum(values)


def test_pack_compresses_exponents():
    values = np.random.default_rng(1).normal(size=100_000).astype(np.float32)
    assert len(file_format.pack(values)) < 0.92 * values.nbytes
    assert len(file_format.pack(np.zeros(100_000, np.float32))) < 2000
