"""`edgekit doctor`: what is installed, what each engine can do here, what is missing and how to get it."""

from __future__ import annotations

import importlib.util
from typing import Any

import typer

from edgekit.cli.console import print_json, say

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
    """Show what this machine can run and what is missing."""
    from edgekit import __version__
    from edgekit.profiler.host import fingerprint
    from edgekit.runtime.engines import ENGINES, engine_class
    from edgekit.schema.decode import encode

    host = fingerprint()
    engines = {name: encode(engine_class(name).available()) for name in ENGINES}
    parts = {name: _part(modules, extra) for name, (modules, extra) in _PARTS.items()}
    acceleration = _acceleration(host.architecture, host.instruction_sets)
    document: dict[str, Any] = {
        "edgekit": __version__,
        "host": encode(host),
        "engines": engines,
        "parts": parts,
        "int8": acceleration,
    }
    if as_json:
        print_json(document)
        return
    say(f"edgekit {__version__}, Python {host.python}")
    say(f"  machine   {host.cpu_model or 'unknown processor'}, {host.cores_usable or '?'} cores usable, {host.architecture}")
    say(f"  memory    {host.memory_mib:.0f} MiB" if host.memory_mib else "  memory    unknown")
    say(f"  int8      {acceleration}")
    for name, found in engines.items():
        say(
            f"  engine    {name} {found['version']}: ready"
            if found["version"]
            else f"  engine    {name}: {found['reason']}; {found['hint']}"
        )
    for name, part in parts.items():
        missing = ", ".join(part["missing"])
        say(f"  {name}: ready" if not missing else f"  {name}: missing {missing}; {part['hint']}")
    say("Not verified by doctor: that a bundle answers right here. `edgekit verify BUNDLE` runs its golden frames.")


def _part(modules: tuple[str, ...], extra: str) -> dict[str, Any]:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return {"ready": not missing, "missing": missing, "hint": f"install the extra: {extra}" if missing else ""}


def _acceleration(architecture: str, flags: tuple[str, ...] | None) -> str:
    found = set(flags or ())
    if architecture.lower() not in ("x86_64", "amd64"):
        return f"not judged on {architecture}: no bundle of this version targets it"
    if {"avx512_vnni", "avx_vnni", "amx_int8"} & found:
        return "fast: this CPU multiplies int8 natively (VNNI or AMX)"
    if "avx2" in found:
        return "works: AVX2 without VNNI; int8 is faster than float32, but less so"
    return "slow: no AVX2; the float rung may be faster"
