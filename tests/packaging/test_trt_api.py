"""Every name of TensorRT that the runtime uses is there in every supported version, or stands behind a gate that says where it is."""

from __future__ import annotations

import ast
import functools

import pytest
import repository
from trt_fake_api import manifest, versions
from trt_scan import Use, accepts, exists, own_names, scan

from edgekit.runtime.engines.tensorrt_api import GATES

VERSIONS = versions()
PACKAGE = {name: tree for name, tree in repository.modules().items() if name.startswith("toolkit/edgekit/")}
# Where TensorRT may be used at all.
FOLDER = "toolkit/edgekit/runtime/engines/tensorrt_"


def _number(version):
    major, minor = version.split(".")
    return int(major), int(minor)


def _behind(gates):
    """The versions for which all of some gates are open."""
    wanted = list(VERSIONS)
    for gate in gates:
        first, gone = GATES.get(gate, ((0, 0), (0, 0)))
        wanted = [version for version in wanted if first <= _number(version) and (gone is None or _number(version) < gone)]
    return wanted


def _problems(uses):
    """What is not right with some uses, one line each."""
    for use in uses:
        for version in _behind(use.gates):
            if not exists(use.name, version):
                yield f"line {use.line}: TensorRT {version} has no {use.name}"
            elif not accepts(use, version):
                yield f"line {use.line}: TensorRT {version} cannot call {use.name} with {use.call}"


def _scan(text):
    tree = ast.parse(text)
    return scan({"sample.py": tree}, own_names({"sample.py": tree}))["sample.py"]


@functools.cache
def _used():
    engines = {name: tree for name, tree in PACKAGE.items() if name.startswith(FOLDER)}
    return scan(engines, own_names(PACKAGE))


def test_the_manifests_are_whole():
    """Each manifest is of the version that its file is named after and has the classes that an engine needs."""
    assert VERSIONS == ("8.5", "8.6", "10.3", "10.13", "10.16", "11.4")
    for version in VERSIONS:
        assert manifest(version)["version"].startswith(f"{version}.")
        assert {"Builder", "OnnxParser", "Runtime", "ICudaEngine", "IExecutionContext"} <= set(manifest(version)["classes"])


@pytest.mark.parametrize("name", sorted(_used()))
def test_what_is_used_is_there_in_every_version(name):
    """Each name in the file exists, and can be called like that, in every version for which its gates are open."""
    assert list(_problems(_used()[name])) == []


def test_the_scan_sees_what_an_engine_cannot_do_without():
    """The scan is not blind: it finds the calls that build, load and execute."""
    found = {use.name for uses in _used().values() for use in uses}
    wanted = {
        "Builder",
        "OnnxParser.parse",
        "Builder.build_serialized_network",
        "Runtime.deserialize_cuda_engine",
        "MemoryPoolType.WORKSPACE",
    }
    assert wanted <= found
    assert {"ICudaEngine.get_tensor_name", "IExecutionContext.set_tensor_address", "IExecutionContext.execute_async_v3"} <= found


@pytest.mark.parametrize("gate", sorted(GATES))
def test_a_gate_is_of_a_name_and_is_used(gate):
    """Each gate names something that exists in every version it is open for, that some version lacks or that is not used in some, and is asked."""
    opened = _behind([gate])
    assert opened
    assert len(opened) < len(VERSIONS)
    assert [version for version in opened if not exists(gate, version)] == []
    assert any(gate in use.gates for uses in _used().values() for use in uses)


def _imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_tensorrt_is_imported_where_the_scan_looks():
    """No file but those that are scanned imports TensorRT, under its name or a part of it."""
    importing = {name for name, tree in PACKAGE.items() if any(module.partition(".")[0] == "tensorrt" for module in _imports(tree))}
    assert importing
    assert all(name.startswith(FOLDER) for name in importing)


HEAD = "import tensorrt as trt\n"
WRONG = {
    "gone-function": "def f(builder: trt.Builder):\n    builder.build_engine()",
    "gone-flag": "x = trt.BuilderFlag.FP16",
    "new-flag": "x = trt.BuilderFlag.VERSION_COMPATIBLE",
    "new-class": "class M(trt.IProgressMonitor): pass",
    "set-property": "def f(config: trt.IBuilderConfig):\n    config.max_aux_streams = 0",
    "through-calls": "x = trt.Builder(trt.Logger()).create_builder_config().max_workspace_size",
    "through-a-variable": "b = trt.Builder(trt.Logger())\nc = b.create_builder_config()\nc.int8_calibrator",
    "through-a-function": "def g() -> trt.ICudaEngine: ...\nx = g().device_memory_size",
    "through-a-pair": "def g() -> tuple[trt.Runtime, trt.ICudaEngine]: ...\nr, e = g()\ne.num_bindings",
    "optional": "def f(engine: trt.ICudaEngine | None):\n    engine.get_binding_name(0)",
    "in-a-field": "class A:\n    engine: trt.ICudaEngine\n    x = engine.num_bindings",
    "without-a-type": "def f(context):\n    context.execute_async_v2([], 0)",
    "nested-class": "x = trt.ILogger.Severity.FATAL",
    "inherited": "trt.Logger().flush()",
    "in-a-comprehension": "x = [trt.BuilderFlag.FP16 for i in range(2)]",
    "in-a-lambda": "x = lambda: trt.BuilderFlag.FP16",
    "in-a-with": "with trt.NoSuchClass() as x: pass",
    "in-an-except": "try:\n    pass\nexcept ValueError:\n    trt.BuilderFlag.FP16",
    "in-an-f-string": "x = f'{trt.BuilderFlag.FP16}'",
    "wrong-keyword": "def f(p: trt.OnnxParser):\n    p.parse(data=b'')",
    "too-many-arguments": "def f(c: trt.IExecutionContext):\n    c.set_tensor_address('x', 1, 2)",
    "too-few-arguments": "def f(c: trt.IBuilderConfig):\n    c.set_timing_cache(None)",
    "gate-of-another-name": "def f(api):\n    if api.has('IProgressMonitor'):\n        trt.BuilderFlag.FP16",
    "other-branch": "def f(api):\n    if api.has('BuilderFlag.FP16'):\n        pass\n    else:\n        trt.BuilderFlag.FP16",
    "or": "def f(api, x):\n    if x or api.has('BuilderFlag.FP16'):\n        trt.BuilderFlag.FP16",
    "before-the-gate": "def f(api):\n    trt.BuilderFlag.FP16\n    if not api.has('BuilderFlag.FP16'):\n        return",
    "no-return": "def f(api):\n    if not api.has('BuilderFlag.FP16'):\n        pass\n    trt.BuilderFlag.FP16",
}
RIGHT = {
    "everywhere": "def f(e: trt.ICudaEngine):\n    return e.get_tensor_name(0), e.num_io_tensors",
    "behind-an-if": "def f(api):\n    if api.has('BuilderFlag.FP16'):\n        trt.BuilderFlag.FP16",
    "behind-two": "def f(api, x):\n    if x and api.has('BuilderFlag.FP16'):\n        trt.BuilderFlag.FP16",
    "in-the-condition": "def f(api, e: trt.ParserError):\n    if api.has('ParserError.node_name') and e.node_name(): pass",
    "after-a-return": "def f(api):\n    if not api.has('IProgressMonitor'):\n        return\n    class M(trt.IProgressMonitor): pass",
    "conditional-expression": "def f(api):\n    return trt.BuilderFlag.FP16 if api.has('BuilderFlag.FP16') else None",
    "shadowed": "def f(builder: trt.Builder): pass\ndef g(builder: Other):\n    builder.build_engine_of_mine()",
    "constructor": "class L(trt.ILogger):\n    def __init__(self):\n        trt.ILogger.__init__(self)",
    "nested-class": "x = trt.ILogger.Severity.ERROR, trt.Logger.ERROR",
    "version": "x = trt.__version__",
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_a_wrong_use_is_found(case):
    """A name, an argument or a gate that does not fit some version is a problem."""
    assert list(_problems(_scan(HEAD + WRONG[case])))


@pytest.mark.parametrize("case", sorted(RIGHT))
def test_a_right_use_is_no_problem(case):
    """What every version has, and what stands behind its gate, is none."""
    uses = _scan(HEAD + RIGHT[case])
    assert list(_problems(uses)) == []
    assert all(isinstance(use, Use) for use in uses)
