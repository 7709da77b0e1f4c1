"""`edgekit doctor`: what this device is, what is installed, what each engine can do here, what is missing and how to get it. Nothing is changed."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import typer

from edgekit.cli.console import only_a_document, print_json, say
from edgekit.errors import TargetError
from edgekit.runtime.cpu import WHOLE_SUMS

if TYPE_CHECKING:
    from edgekit.profiler.device import Device
    from edgekit.profiler.host import Host
    from edgekit.profiler.jetson_state import Clock

# What each part of edgekit needs: module to (what for, how to get it).
_PARTS = {
    "compile": (
        ("torch", "timm", "torchvision", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "safetensors"),
        "edgekit-toolkit[compile]",
    ),
    "DICOM": (("pydicom", "jpeg_ls", "openjpeg"), "edgekit-toolkit[dicom]"),
    "DICOM, JPEG Lossless": (("gdcm",), "edgekit-toolkit[dicom-lossless-jpeg]"),
    "torchxrayvision models": (("torchxrayvision",), "edgekit-toolkit[xrv]"),
}


def doctor(as_json: bool = typer.Option(False, "--json", help="Print one JSON document on stdout.")) -> None:
    """Show what this machine is, what it can run and what is missing; build one layer in each precision where TensorRT is there."""
    from edgekit import __version__
    from edgekit.profiler.device import read_device, remarks
    from edgekit.profiler.device_checks import examine
    from edgekit.profiler.host import fingerprint
    from edgekit.schema.decode import encode

    with only_a_document():
        host, found = fingerprint(), examine()
        device = read_device()
    parts = {name: _part(modules, extra) for name, (modules, extra) in _PARTS.items()}
    acceleration = _acceleration(host.architecture, host.instruction_sets)
    if as_json:
        print_json(
            {
                "edgekit": __version__,
                "can_run": found.can_run,
                "host": encode(host),
                "device": encode(device),
                "remarks": list(remarks(device)),
                "engines": encode(found.engines),
                "dla_cores": found.probed.dla_cores,
                "checks": encode(found.checks),
                "parts": parts,
                "int8": acceleration,
            }
        )
    else:
        say(f"edgekit {__version__}, Python {host.python}")
        for line in (*_host_lines(host, acceleration), *_device_lines(device, found.probed.dla_cores)):
            say(f"  {line}")
        for text in (
            *(f"  note       {remark}" for remark in remarks(device)),
            *(check.line() for check in found.checks),
            *_part_lines(parts),
        ):
            say(text)
        say("Not verified by doctor: that a bundle answers right here. `edgekit verify BUNDLE` runs its golden frames.")
    if not found.can_run:
        raise TargetError("no engine can run here", hint="each engine's reason and remedy are above")


def _host_lines(host: Host, acceleration: str) -> list[str]:
    return [
        f"machine    {host.cpu_model or 'unknown processor'}, {host.cores_usable or '?'} cores usable, {host.architecture}",
        f"cpu has    {', '.join(host.instruction_sets) if host.instruction_sets else 'no instruction set that decides a kernel'}",
        f"memory     {host.memory_mib:.0f} MiB" if host.memory_mib else "memory     unknown",
        f"int8       {acceleration}",
    ]


def _device_lines(device: Device, dla_cores: int | None) -> list[str]:
    """One line a thing that was looked at; where there was nothing to see, the reason."""
    why = device.unavailable
    gpu, mode = device.gpu, device.power_mode
    seen = {
        "module": None if device.part_number is None else f"{device.model or 'unknown'}, {device.part_number}",
        "profile": device.profile,
        "system": None if device.l4t is None else f"Linux for Tegra {device.l4t}, JetPack {device.jetpack or why['jetpack']}",
        "tensorrt": device.tensorrt,
        "gpu": None if gpu is None else f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.multiprocessors} multiprocessors",
        **({} if gpu is None else {"cuda": f"runtime {gpu.cuda_runtime} by {gpu.binding}, driver for {gpu.cuda_driver}"}),
        "driver": device.driver,
        "libraries": ", ".join(device.libraries) if device.libraries else None,
        "dla": None if device.dla_cores is None else f"{device.dla_cores} of the module; {_known(dla_cores)} that TensorRT uses",
        "power mode": None if mode is None else f"{mode.name or 'without a name'}, number {mode.id} ({mode.source})",
        "free": _free(device),
    }
    reasons = {
        "module": "part_number",
        "system": "l4t",
        "cuda": "gpu",
        "dla": "dla_cores",
        "power mode": "power_mode",
        "free": "memory_available_mib",
    }
    lines = [f"{name:<10} {text or 'NOT RUN: ' + why[reasons.get(name, name)]}" for name, text in seen.items()]
    return lines + [f"{'clock':<10} {_clock(clock)}" for clock in device.clocks]


def _free(device: Device) -> str | None:
    if device.memory_available_mib is None:
        return None
    parts = {"memory": device.memory_available_mib, "swap": device.swap_free_mib, "disk of the engine cache": device.cache_free_mib}
    return ", ".join(f"{name} {'unknown' if mib is None else f'{mib:.0f} MiB'}" for name, mib in parts.items())


def _clock(clock: Clock) -> str:
    if clock.current_mhz is None:
        return f"{clock.name}: NOT RUN: {clock.reason}"
    locked = {True: "locked", False: "not locked", None: "not known whether locked"}[clock.locked]
    between = "" if clock.lowest_mhz is None or clock.highest_mhz is None else f" of {clock.lowest_mhz:.0f} to {clock.highest_mhz:.0f}"
    governed = f", {clock.governor}" if clock.governor else ""
    return f"{clock.name}: {clock.current_mhz:.0f}{between} MHz, {locked}{governed}{f'; {clock.reason}' if clock.reason else ''}"


def _known(number: int | None) -> str:
    return "unknown" if number is None else str(number)


def _part_lines(parts: dict[str, dict[str, Any]]) -> list[str]:
    shown = []
    for name, part in parts.items():
        missing = ", ".join(part["missing"])
        shown.append(f"  {name}: ready" if not missing else f"  {name}: missing {missing}; {part['hint']}")
    return shown


def _part(modules: tuple[str, ...], extra: str) -> dict[str, Any]:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return {"ready": not missing, "missing": missing, "hint": f"install the extra: {extra}" if missing else ""}


def _acceleration(architecture: str, flags: tuple[str, ...] | None) -> str:
    """What the CPU does with int8; the GPU's part is shown by the builds."""
    found = set(flags or ())
    if architecture.lower() in ("aarch64", "arm64"):
        if {"dotprod", "i8mm"} & found:
            return "fast: this CPU multiplies int8 natively (dot products or i8mm)"
        return "works: no dot products; int8 is faster than float32, but less so" if "asimd" in found else "not judged: no flags of the CPU"
    if architecture.lower() not in ("x86_64", "amd64"):
        return f"not judged on {architecture}"
    if WHOLE_SUMS & found:
        return "fast: this CPU multiplies int8 natively (VNNI or AMX)"
    if "avx2" in found:
        return "works: AVX2 without VNNI; int8 is faster than float32, but less so"
    return "slow: no AVX2; the float rung may be faster"
