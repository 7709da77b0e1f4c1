"""What a profile of a device may say, and what contradicts itself and is refused."""

from __future__ import annotations

import pytest

from edgekit.catalog import files
from edgekit.catalog.target import load_target
from edgekit.errors import CatalogError

CPU = """\
title = "t"
architectures = ["x86_64"]

[[engines]]
name = "openvino"

[engines.settings]
NUM_STREAMS = "1"

[[facts]]
statement = "It has a fan."
source = "Its data sheet"
"""

MODULE = """\
title = "t"
architectures = ["aarch64"]
channel_multiple = 32

[[engines]]
name = "tensorrt-int8"

[engines.settings]

[[engines]]
name = "onnxruntime"

[engines.settings]

[jetson]
part_numbers = ["p3767-0003"]
soc = "t234"
compute_capability = "8.7"
multiprocessors = 8
memory_mib = 8192
dla_cores = 0
dla_generation = 0
sparsity_2_4 = true
io_coherent = true
jetpacks = [
  { version = "6.2", l4t = "36.4.3", tensorrt = "10.3.0", cuda = "12.6", python = "3.10" },
  { version = "7.2", l4t = "39.2.0", tensorrt = "10.16.2", cuda = "13.2", python = "3.12" },
]

[tensorrt]
versions = ["10.3", "10.16"]
opset = 19
strongly_typed = true
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes the only profile there is."""
    monkeypatch.setattr(files, "folder", lambda _: tmp_path)

    def write(text):
        (tmp_path / "x.toml").write_text(text)

    return write


def test_a_module_is_read_whole(write):
    """The values of the file come out under their names; the first engine is the one that bundles are made for."""
    write(MODULE)
    target = load_target("x")
    assert target.name == "x"
    assert (target.engine.name, [engine.name for engine in target.engines]) == ("tensorrt-int8", ["tensorrt-int8", "onnxruntime"])
    assert target.jetson.jetpacks[1].tensorrt == "10.16.2"
    assert target.tensorrt.versions == ("10.3", "10.16")


def test_what_may_be_left_out(write):
    """A CPU without special instructions, sums that are whole, channels as they come."""
    write(CPU)
    target = load_target("x")
    assert (target.instruction_sets, target.int8_saturates, target.channel_multiple) == ((), False, 1)
    assert (target.jetson, target.tensorrt) == (None, None)


BAD_CPUS = {
    "no-architecture": ('["x86_64"]', "[]", "architectures is empty"),
    "engine-twice": ("[[facts]]", '[[engines]]\nname = "openvino"\n[engines.settings]\n[[facts]]', "names one twice"),
    "no-engine": ('[[engines]]\nname = "openvino"\n\n[engines.settings]\nNUM_STREAMS = "1"\n', "", "'engines' is missing"),
    "number-as-setting": ('NUM_STREAMS = "1"', "NUM_STREAMS = 1", "NUM_STREAMS: expected str"),
    "channels-of-zero": ('title = "t"', 'title = "t"\nchannel_multiple = 0', "channel_multiple must be between 1 and 256"),
    "no-source": ('"Its data sheet"', '" "', "needs a statement and its source"),
    "no-statement": ('"It has a fan."', '""', "needs a statement and its source"),
    "tensorrt-without-engine": (
        "[[facts]]",
        '[tensorrt]\nversions = ["10.3"]\nopset = 19\nstrongly_typed = true\n[[facts]]',
        "exactly when TensorRT",
    ),
    "misspelt": ('title = "t"', 'title = "t"\ninstruction_set = ["avx2"]', "instruction_set: unknown key"),
}

BAD_MODULES = {
    "engine-without-tensorrt": (MODULE[MODULE.index("[tensorrt]") :], "", "exactly when TensorRT"),
    "no-part-number": ('["p3767-0003"]', "[]", "part_numbers and jetpacks must not be empty"),
    "part-number-with-maker": ('["p3767-0003"]', '["nvidia,p3767-0003"]', "is not of the form p3767-0003"),
    "part-number-twice": ('["p3767-0003"]', '["p3767-0003", "p3767-0003"]', "there twice"),
    "capability-of-one-number": ('"8.7"', '"87"', "compute_capability '87'"),
    "no-multiprocessor": ("multiprocessors = 8", "multiprocessors = 0", "must be above 0"),
    "dla-without-generation": ("dla_cores = 0", "dla_cores = 1", "contradict each other"),
    "dla-of-no-generation": ("dla_generation = 0", "dla_generation = 3", "contradict each other"),
    "jetpacks-out-of-order": ('l4t = "36.4.3"', 'l4t = "39.3.0"', "in the order of their l4t"),
    "jetpack-twice": ('l4t = "36.4.3"', 'l4t = "39.2.0"', "in the order of their l4t"),
    "version-of-words": ('cuda = "12.6"', 'cuda = "12.x"', "cuda '12.x' is not numbers"),
    "jetpack-of-another-tensorrt": ('"10.16.2"', '"10.13.3"', "JetPack 7.2 has TensorRT 10.13.3"),
    "no-version": ('versions = ["10.3", "10.16"]', "versions = []", "must be one or more"),
    "version-with-patch": ('versions = ["10.3", "10.16"]', 'versions = ["10.3.0", "10.16"]', "form major.minor"),
    "versions-as-texts": ('versions = ["10.3", "10.16"]', 'versions = ["10.16", "10.3"]', "must be in order"),
    "opset-without-float16-scales": ("opset = 19", "opset = 17", "opset 19, the first with float16 scales"),
    "opset-of-the-future": ("opset = 19", "opset = 25", "between 13 and 24"),
    "typed-before-10": ('versions = ["10.3", ', 'versions = ["8.6", ', "strongly_typed needs TensorRT 10"),
    "untyped-at-11": (
        '"10.16"]\nopset = 19\nstrongly_typed = true',
        '"10.16", "11.4"]\nopset = 19\nstrongly_typed = false',
        "nothing but strongly typed",
    ),
    "opset-too-new-for-8": (
        '["10.3", "10.16"]\nopset = 19\nstrongly_typed = true',
        '["8.6", "10.3"]\nopset = 19\nstrongly_typed = false',
        "up to opset 17",
    ),
}


@pytest.mark.parametrize(("old", "new", "message"), BAD_CPUS.values(), ids=BAD_CPUS)
def test_a_wrong_profile_of_a_cpu_is_refused(write, old, new, message):
    """With the place and the reason."""
    write(change(CPU, old, new))
    with pytest.raises(CatalogError, match=message):
        load_target("x")


@pytest.mark.parametrize(("old", "new", "message"), BAD_MODULES.values(), ids=BAD_MODULES)
def test_a_wrong_profile_of_a_module_is_refused(write, old, new, message):
    """With the place and the reason."""
    write(change(MODULE, old, new))
    with pytest.raises(CatalogError, match=message):
        load_target("x")


def change(text, old, new):
    """The text with one thing changed; a case that changes nothing would prove nothing."""
    assert text.count(old) == 1
    return text.replace(old, new)
