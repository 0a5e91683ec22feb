"""What the library reads of the processor, and what training says of it."""

import dataclasses

import pytest
import tensorflow as tf
from small_runs import SMALL

from keras_popup import _processor, training

X86 = "processor\t: 0\nmodel name\t: AMD EPYC 9B14\nflags\t\t: fpu {flags}\n\nprocessor\t: 1\nmodel name\t: other\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd {flags}\n\n"


@pytest.fixture
def tell(monkeypatch, tmp_path):
    """Returns a function that sets what Linux tells of the processor."""

    def set_text(text):
        file = tmp_path / "cpuinfo"
        file.write_text(text)
        monkeypatch.setattr(_processor, "_INFORMATION", file)

    return set_text


@pytest.mark.parametrize(
    ("text", "emulated"),
    [
        (X86.format(flags="avx2"), {"bfloat16", "float16"}),
        (X86.format(flags="avx512_bf16"), {"float16"}),
        (X86.format(flags="amx_bf16 avx512_fp16"), set()),
        (ARM.format(flags="asimdhp"), {"bfloat16"}),
        (ARM.format(flags="asimdhp bf16"), set()),
        ("", set()),
        ("cpu\t\t: POWER9\n", set()),
    ],
)
def test_emulates_what_has_no_instructions(tell, text, emulated):
    tell(text)
    assert {dtype for dtype in ("float32", "bfloat16", "float16") if _processor.emulates(dtype)} == emulated


def test_nothing_is_emulated_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(_processor, "_INFORMATION", tmp_path / "cpuinfo")
    assert not _processor.emulates("bfloat16")
    assert _processor.find_processor()


def test_find_processor_names_the_first_core(tell):
    tell(X86.format(flags=""))
    assert _processor.find_processor() == "AMD EPYC 9B14"


@pytest.mark.parametrize(
    ("precision", "flags", "is_said"),
    [("mixed_bfloat16", "avx2", True), ("mixed_bfloat16", "avx512_bf16", False), ("float32", "avx2", False)],
)
def test_training_says_that_a_precision_is_emulated(tell, caplog, tmp_path, precision, flags, is_said):
    tell(X86.format(flags=flags))
    training.train(dataclasses.replace(SMALL, precision=precision, epochs=1), tmp_path / "run")
    on_gpu = bool(tf.config.list_logical_devices("GPU"))
    assert ("no instructions for bfloat16" in caplog.text) == (is_said and not on_gpu)
