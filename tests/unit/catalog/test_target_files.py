"""Every file in `targets/`: what holds for one device, and what holds between them."""

from __future__ import annotations

import collections
import re

import pytest

from edgekit.catalog import files
from edgekit.catalog.target import load_target
from edgekit.runtime.cpu import INSTRUCTION_SETS
from edgekit.runtime.engines import ENGINES, onnxruntime

TARGETS = {name: load_target(name) for name in files.names("targets")}
JETSONS = {name: target for name, target in TARGETS.items() if target.jetson is not None}
VECTOR_PRODUCTS = {"avx_vnni", "avx512_vnni", "amx_int8"}
# What has been there once; without its profile nothing could be compiled for a device again.
PROMISED = {
    "arm64",
    "intel-core-ultra",
    "intel-core-ultra-gpu",
    "intel-core-ultra-npu",
    "intel-n100",
    "jetson-agx-orin-32gb",
    "jetson-agx-orin-64gb",
    "jetson-agx-thor",
    "jetson-agx-xavier",
    "jetson-orin-nano-4gb",
    "jetson-orin-nano-8gb",
    "jetson-orin-nx-16gb",
    "jetson-orin-nx-8gb",
    "jetson-xavier-nx",
    "raspberry-pi-5",
    "x86-64",
    "x86-64-amx",
    "x86-64-onnxruntime",
    "x86-64-vnni",
}

every = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
every_jetson = pytest.mark.parametrize("target", JETSONS.values(), ids=JETSONS)


def settings(target, engine):
    """The settings of each engine of a target whose name begins so."""
    return [choice.settings for choice in target.engines if choice.name.startswith(engine)]


def test_no_profile_is_lost():
    """Bundles name their target: what was there once stays."""
    assert set(TARGETS) >= PROMISED


@every
def test_names_and_titles(target):
    """A name is one that a bundle may carry, and a title is one line that no other profile has."""
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*", target.name)
    assert target.title.strip() == target.title != ""
    assert [other.title for other in TARGETS.values()].count(target.title) == 1


@every
def test_every_engine_is_one_of_the_table(target):
    """A bundle for it could otherwise never be made."""
    assert {engine.name for engine in target.engines} <= set(ENGINES)


@every
def test_every_fact_has_a_source_that_can_be_looked_up(target):
    """Not only a word, none of this machine, and no fact is there twice."""
    assert target.facts
    for fact in target.facts:
        assert len(fact.source) >= 10, fact.source
        assert not re.search(r"(?:^|[\s(])(?:/|\.\./|~)", fact.source), fact.source
        assert fact.statement.endswith(".")
    assert len({fact.statement for fact in target.facts}) == len(target.facts)


@every
def test_architectures_are_of_one_kind(target):
    """A profile stands for x86-64 or for 64-bit ARM, by both of its names in lower case."""
    assert set(target.architectures) in ({"x86_64", "amd64"}, {"aarch64", "arm64"})


@every
def test_instruction_sets_are_told_by_doctor(target):
    """By a name that no machine shows, no machine would ever match."""
    assert set(target.instruction_sets) <= set(INSTRUCTION_SETS.values())


@every
def test_weights_keep_to_half_of_their_range_where_sums_may_be_cut_off(target):
    """On x86-64 that is everywhere but where VNNI or AMX is demanded; ARM sums whole, and so do an Intel GPU and NPU."""
    elsewhere = any(chosen.get("DEVICE", "CPU") != "CPU" for chosen in settings(target, "openvino"))
    whole = elsewhere or (bool(target.instruction_sets) and set(target.instruction_sets) <= VECTOR_PRODUCTS)
    assert target.int8_saturates == ("x86_64" in target.architectures and not whole)


@every
def test_the_precision_of_openvino_is_pinned(target):
    """It would choose bfloat16 by itself on a CPU; a GPU and an NPU are made for float16."""
    for chosen in settings(target, "openvino"):
        assert chosen["INFERENCE_PRECISION_HINT"] == ("f32" if chosen.get("DEVICE", "CPU") == "CPU" else "f16")


@every
def test_the_settings_of_onnxruntime_are_read(target):
    """Each key is one that a bundle may choose, and its value one that the engine understands; threads sleep when they wait."""
    for chosen in settings(target, "onnxruntime"):
        for key, value in chosen.items():
            onnxruntime.SETTINGS[key](value)
        assert chosen["ALLOW_SPINNING"] == "0"


@every
def test_openvino_stays_on_x86(target):
    """Only there its artefacts were ever proven."""
    assert not settings(target, "openvino") or "x86_64" in target.architectures


def test_modules_have_profiles_of_their_own():
    """`jetson-*` and a table [jetson] belong together, and a part number leads to one profile."""
    assert set(JETSONS) == {name for name in TARGETS if name.startswith("jetson-")}
    parts = collections.Counter(part for target in JETSONS.values() for part in target.jetson.part_numbers)
    assert not [part for part, count in parts.items() if count > 1]


@every_jetson
def test_a_module_falls_back_in_order(target):
    """int8 first, float16 after it where the graph can say it, the CPU at last; both builds are allowed the same."""
    halves = ["tensorrt-fp16"] if target.tensorrt.strongly_typed else []
    assert [engine.name for engine in target.engines] == ["tensorrt-int8", *halves, "onnxruntime"]
    assert all(engine.settings == target.engine.settings for engine in target.engines[:-1])


@every_jetson
def test_a_builder_leaves_memory_to_the_system(target):
    """The workspace is an eighth of the memory that CPU and GPU share, and 4 GiB at most."""
    assert int(target.engine.settings["WORKSPACE_MIB"]) == min(4096, target.jetson.memory_mib // 8)


@every_jetson
def test_a_builder_is_told_only_what_it_understands(target):
    """Optimization level and auxiliary streams are knobs from TensorRT 8.6 on; a module of 4 GB builds at a lower level."""
    chosen = target.engine.settings
    oldest = tuple(int(part) for part in target.tensorrt.versions[0].split("."))
    knobs = {"OPTIMIZATION_LEVEL": "2" if target.jetson.memory_mib <= 4096 else "3", "MAX_AUX_STREAMS": "0"} if oldest >= (8, 6) else {}
    assert chosen == {"WORKSPACE_MIB": chosen["WORKSPACE_MIB"], **knobs, "CUDA_GRAPH": "true"}


GENERATIONS = {
    # Compute capability, 2:4 sparsity, generation of the DLA, oldest TensorRT, strongly typed, opset.
    "t194": ("7.2", False, 1, "8.5", False, 17),
    "t234": ("8.7", True, 2, "10.3", True, 20),
    "t264": ("11.0", True, 0, "10.13", True, 20),
}


@every_jetson
def test_modules_of_one_chip_agree(target):
    """What belongs to the system on chip is the same in every profile of it."""
    jetson, tensorrt = target.jetson, target.tensorrt
    capability, sparsity, generation, oldest, typed, opset = GENERATIONS[jetson.soc]
    assert (jetson.compute_capability, jetson.sparsity_2_4) == (capability, sparsity)
    assert jetson.dla_generation in {0, generation}
    assert (tensorrt.versions[0], tensorrt.strongly_typed, tensorrt.opset) == (oldest, typed, opset)


@every_jetson
def test_every_tensorrt_comes_from_somewhere(target):
    """A version that a profile conforms to is in one of its JetPacks, or a fact says how it gets there."""
    shipped = {".".join(jetpack.tensorrt.split(".")[:2]) for jetpack in target.jetson.jetpacks}
    for version in set(target.tensorrt.versions) - shipped:
        assert any(f"TensorRT {version}." in fact.statement for fact in target.facts), version


@every_jetson
def test_jetpacks_are_the_same_release_everywhere(target):
    """What a JetPack holds does not depend on the module that runs it."""
    known = {jetpack.l4t: jetpack for other in JETSONS.values() for jetpack in other.jetson.jetpacks}
    assert all(known[jetpack.l4t] == jetpack for jetpack in target.jetson.jetpacks)


@every_jetson
def test_the_facts_name_the_part_numbers(target):
    """Who holds a module finds its number and where it was read; of several the first in full, the others by their end."""
    text = " ".join(fact.statement for fact in target.facts)
    first, *others = target.jetson.part_numbers
    assert first in text
    assert all(other in text or other[5:] in text for other in others)
