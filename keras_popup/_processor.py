"""What the processor is, and what it has instructions for."""

import platform
from pathlib import Path

_INFORMATION = Path("/proc/cpuinfo")
# As Linux names them, of x86 and of ARM.
_INSTRUCTIONS = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}


def find_processor() -> str:
    """Returns the name of the processor, or the type of the machine where the system does not tell the name."""
    return _read_core().get("model name") or platform.processor() or platform.machine()


def emulates(dtype: str) -> bool:
    """Tells whether the processor has no instructions for a type of numbers. Where the system does not tell: False.

    Args:
        dtype: "float32", "bfloat16" or "float16".
    """
    core = _read_core()
    present = core.get("flags") or core.get("Features", "")  # x86, ARM
    return bool(present) and dtype in _INSTRUCTIONS and _INSTRUCTIONS[dtype].isdisjoint(present.split())


def _read_core() -> dict[str, str]:
    """Returns what Linux tells of the first core. Elsewhere this is nothing."""
    if not _INFORMATION.exists():
        return {}
    first, _, _ = _INFORMATION.read_text(errors="replace").partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
