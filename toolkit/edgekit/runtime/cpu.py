"""Reads `/proc/cpuinfo`: which processor it is, and which instructions its inference kernels can use.

x86 kernels name the processor; most ARM kernels give only numbers, which are looked up where they are known and shown as numbers otherwise.
"""

from __future__ import annotations

INSTRUCTION_SETS: dict[str, str] = {
    # x86: INT8 dot products and bfloat16 decide what OpenVINO and ONNX Runtime run, and with what rounding.
    "avx2": "avx2",
    "avx_vnni": "avx_vnni",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "avx512_fp16": "avx512_fp16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    # ARM: the kernel's names differ from the architecture's.
    "asimd": "asimd",
    "asimddp": "dotprod",
    "asimdhp": "fp16",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
}
"""Flag in `/proc/cpuinfo` to the name shown."""

WHOLE_SUMS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""Any of these, and int8 products are summed in 32 bits on x86; without, two are first summed in 16, and large sums are cut off unseen."""

ARM_CORES: dict[tuple[str, str], str] = {
    ("0x41", "0xd03"): "Arm Cortex-A53",
    ("0x41", "0xd05"): "Arm Cortex-A55",
    ("0x41", "0xd07"): "Arm Cortex-A57",
    ("0x41", "0xd08"): "Arm Cortex-A72",
    ("0x41", "0xd09"): "Arm Cortex-A73",
    ("0x41", "0xd0a"): "Arm Cortex-A75",
    ("0x41", "0xd0b"): "Arm Cortex-A76",
    ("0x41", "0xd0c"): "Arm Neoverse-N1",
    ("0x41", "0xd0d"): "Arm Cortex-A77",
    ("0x41", "0xd40"): "Arm Neoverse-V1",
    ("0x41", "0xd41"): "Arm Cortex-A78",
    ("0x41", "0xd42"): "Arm Cortex-A78AE",
    ("0x41", "0xd49"): "Arm Neoverse-N2",
    ("0x4e", "0x003"): "NVIDIA Denver 2",
    ("0x4e", "0x004"): "NVIDIA Carmel",
}
"""(CPU implementer, CPU part) to the core's name, as util-linux's lscpu lists them."""


def cpu_model(cpuinfo: str) -> str | None:
    """Name of the processor; every kind of core of a mixed ARM processor, in the order of the file. None when the text names none.

    Args:
        cpuinfo: Text of `/proc/cpuinfo`.
    """
    names = _values(cpuinfo, "model name")
    implementers, parts = _values(cpuinfo, "CPU implementer"), _values(cpuinfo, "CPU part")
    if implementers and len(implementers) == len(parts):
        # 32-bit ARM kernels fill "model name" with the architecture; the numbers say more.
        names = [ARM_CORES.get(core, f"Arm implementer {core[0]} part {core[1]}") for core in zip(implementers, parts, strict=True)]
    return " + ".join(dict.fromkeys(names)) or None


def instruction_sets(cpuinfo: str) -> tuple[str, ...] | None:
    """Which of `INSTRUCTION_SETS` the first core has, in that order; None when the text lists no flags.

    Args:
        cpuinfo: Text of `/proc/cpuinfo`.
    """
    listed = _values(cpuinfo, "flags") or _values(cpuinfo, "Features")
    if not listed:
        return None
    flags = set(listed[0].split())
    return tuple(name for flag, name in INSTRUCTION_SETS.items() if flag in flags)


def _values(cpuinfo: str, key: str) -> list[str]:
    pairs = (line.partition(":") for line in cpuinfo.splitlines())
    return [value.strip() for name, _, value in pairs if name.strip() == key and value.strip()]
