"""`edgekit targets`: the list, and everything of one."""

from __future__ import annotations

import re
import textwrap

import pytest
from command_line import assert_refused, edgekit

from edgekit.catalog import files
from edgekit.catalog.target import load_target

NAMES = files.names("targets")


def test_the_list_has_every_target_once(capfd):
    """A line each under a header: the name, the engines in their order, the title."""
    lines = edgekit(capfd, "targets").out.splitlines()
    assert lines[0].split() == ["target", "engines", "title"]
    shown = [re.split(r" {2,}", line) for line in lines[1 : 1 + len(NAMES)]]
    expected = [load_target(name) for name in NAMES]
    assert shown == [[target.name, ", ".join(engine.name for engine in target.engines), target.title] for target in expected]


@pytest.mark.parametrize("name", NAMES)
def test_one_target_is_shown_whole(name, capfd):
    """Whatever its file says is on the screen: every engine, setting, number, release and fact with its source."""
    target = load_target(name)
    out = edgekit(capfd, "targets", name).out
    words = " ".join(out.split())
    for text in (target.title, *target.architectures, *target.instruction_sets):
        assert text in words
    for engine in target.engines:
        assert re.search(rf"^  engine +{re.escape(engine.name)},", out, re.MULTILINE)
        assert all(f"{key} = {value}" in words for key, value in engine.settings.items())
    for fact in target.facts:
        assert f"- {fact.statement} source: {fact.source}" in words


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("jetson-")])
def test_a_module_is_shown_whole(name, capfd):
    """Part numbers, chip and memory, a table of the releases, and what graphs keep to."""
    target = load_target(name)
    jetson, tensorrt = target.jetson, target.tensorrt
    out = edgekit(capfd, "targets", name).out
    lines = labelled(out)
    assert lines["module"] == ", ".join(jetson.part_numbers)
    assert lines["GPU"] == f"{jetson.multiprocessors} multiprocessors, compute capability {jetson.compute_capability} ({jetson.soc})"
    assert lines["memory"].startswith(f"{jetson.memory_mib} MiB")
    assert lines["DLA"] == (f"{jetson.dla_cores} of generation {jetson.dla_generation}" if jetson.dla_cores else "none")
    assert lines["2:4 sparsity"] == ("yes" if jetson.sparsity_2_4 else "no")
    assert lines["TensorRT graphs"].startswith(
        f"opset {tensorrt.opset}, {'strongly typed' if tensorrt.strongly_typed else 'typed by the builder'}"
    )
    assert lines["TensorRT graphs"].endswith(", ".join(tensorrt.versions))
    table = textwrap.dedent(out[out.index("    JetPack ") : out.index("  TensorRT graphs")]).splitlines()
    shown = [tuple(line.split()) for line in table[1:]]
    assert shown == [(pack.version, pack.l4t, pack.tensorrt, pack.cuda, pack.python) for pack in jetson.jetpacks]


SUMS = {"x86-64": "half", "x86-64-onnxruntime": "half", "x86-64-vnni": "all", "raspberry-pi-5": "all"}


@pytest.mark.parametrize(("name", "share"), SUMS.items(), ids=SUMS)
def test_the_range_of_weights_is_told(name, share, capfd):
    """Half where sums may be cut off, all of it elsewhere."""
    assert labelled(edgekit(capfd, "targets", name).out)["int8 sums"].endswith(f"weights use {share} of their range")


def test_instructions_that_are_demanded(capfd):
    """Any one of those that are named will do; nothing is named where every CPU will."""
    assert labelled(edgekit(capfd, "targets", "x86-64-vnni").out)["instructions"] == "one of avx512_vnni, avx_vnni"
    assert labelled(edgekit(capfd, "targets", "x86-64").out)["instructions"] == "no special ones"


def test_a_target_that_is_not_there(capfd):
    """Is refused with the nearest that is."""
    ran = edgekit(capfd, "targets", "jetson-orin-nano-8")
    assert_refused(ran, "'jetson-orin-nano-8' is not in targets/")
    assert "did you mean 'jetson-orin-nano-8gb'" in ran.err


def labelled(out: str) -> dict[str, str]:
    """The lines of a target that have a label before their text."""
    found = (re.fullmatch(r"  (\S(?:\S| \S)*) {2,}(\S.*)|  (.{16}) (\S.*)", line) for line in out.splitlines())
    return {(match[1] or match[3]).strip(): match[2] or match[4] for match in found if match}
