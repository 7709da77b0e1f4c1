"""`edgekit targets`: the devices this edgekit knows."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import typer

from edgekit.cli.console import say, table

if TYPE_CHECKING:
    from edgekit.catalog.target import Jetson, Target, TensorRt

_WIDTH = 100
_LABEL = 18


def targets(name: str | None = typer.Argument(None, metavar="NAME", help="Show one target in full.")) -> None:
    """List the targets, or show one."""
    from edgekit.catalog import files
    from edgekit.catalog.target import load_target

    if name is not None:
        _show(load_target(name))
        return
    found = [load_target(item) for item in files.names("targets")]
    rows = [(target.name, ", ".join(engine.name for engine in target.engines), target.title) for target in found]
    say(table(rows, header=("target", "engines", "title"), words=3))
    say("A bundle is made for the first engine; the others answer when it cannot. `edgekit targets NAME` shows one in full.")


def _show(target: Target) -> None:
    say(f"{target.name}: {target.title}")
    _line("architectures", ", ".join(target.architectures))
    _line("instructions", "one of " + ", ".join(target.instruction_sets) if target.instruction_sets else "no special ones")
    _line(
        "int8 sums",
        "may be cut off at 16 bits: weights use half of their range" if target.int8_saturates else "whole: weights use all of their range",
    )
    _line("channels", f"multiples of {target.channel_multiple} after pruning")
    for place, engine in enumerate(target.engines):
        _line("engine", engine.name + (", which bundles are made for" if place == 0 else ", when those before it cannot"))
        for key, value in engine.settings.items():
            say(f"    {key} = {value}")
    if target.jetson is not None:
        _show_jetson(target.jetson)
    if target.tensorrt is not None:
        _show_tensorrt(target.tensorrt)
    say("  facts")
    for fact in target.facts:
        say(textwrap.fill(fact.statement, _WIDTH, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False))
        say(textwrap.fill(f"source: {fact.source}", _WIDTH, initial_indent="      ", subsequent_indent="      ", break_on_hyphens=False))


def _show_jetson(jetson: Jetson) -> None:
    _line("module", ", ".join(jetson.part_numbers))
    _line("GPU", f"{jetson.multiprocessors} multiprocessors, compute capability {jetson.compute_capability} ({jetson.soc})")
    _line("memory", f"{jetson.memory_mib} MiB for CPU and GPU, I/O coherent: {_yes(jetson.io_coherent)}")
    _line("2:4 sparsity", _yes(jetson.sparsity_2_4))
    _line("DLA", f"{jetson.dla_cores} of generation {jetson.dla_generation}" if jetson.dla_cores else "none")
    rows = [(pack.version, pack.l4t, pack.tensorrt, pack.cuda, pack.python) for pack in jetson.jetpacks]
    say(textwrap.indent(table(rows, header=("JetPack", "L4T", "TensorRT", "CUDA", "Python"), words=5), "    "))


def _show_tensorrt(tensorrt: TensorRt) -> None:
    typing = "strongly typed" if tensorrt.strongly_typed else "typed by the builder"
    _line("TensorRT graphs", f"opset {tensorrt.opset}, {typing}, conforming to {', '.join(tensorrt.versions)}")


def _line(label: str, text: str) -> None:
    say(f"  {label:<{_LABEL}}{text}")


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"
