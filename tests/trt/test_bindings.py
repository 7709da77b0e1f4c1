"""NVIDIA's own Python bindings have the names of the manifests, and the runtime's files fit their types."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import repository
import trt_rtx
import trt_stubs
from trt_fake_api import manifest

# Those with wheels for this Python (see `make.py`); the manifests of the others are made with an older one.
LIVE = ("8.6", "10.3", "10.13", "10.16", "11.4")
ENGINE_FILES = sorted(name for name in repository.modules() if name.startswith("toolkit/edgekit/runtime/engines/tensorrt_"))


def _bindings(version):
    return trt_rtx.folder(f"bindings/{version}") / "tensorrt_bindings"


@pytest.fixture
def stubs(tmp_path):
    if missing := trt_stubs.missing_tool():
        pytest.skip(f"{missing} is not installed: without it there is nothing to import the bindings over")
    return tmp_path


@pytest.mark.parametrize("version", LIVE)
def test_a_manifest_is_what_the_bindings_have(version, stubs):
    """What the real module tells of itself is the manifest, name for name."""
    bindings = _bindings(version)
    trt_stubs.build(bindings, stubs)
    found = trt_stubs.introspect(bindings, stubs)
    assert found == {key: value for key, value in manifest(version).items() if key != "source"}


RECORDED = """
import sys
import tensorrt_bindings as trt
for make in (lambda: trt.Builder(trt.Logger()), lambda: trt.Runtime(trt.Logger())):
    try:
        make()
    except TypeError as error:
        print(error)
"""


@pytest.mark.parametrize("version", ["10.3", "11.4"])
def test_without_a_library_a_constructor_is_a_type_error(version, stubs):
    """The real `Builder` and `Runtime` answer a library that gives them nothing with TypeError, as the fake does without a GPU."""
    bindings = _bindings(version)
    trt_stubs.build(bindings, stubs)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(stubs), "PYTHONPATH": str(bindings.parent)}
    ended = subprocess.run([sys.executable, "-c", RECORDED], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.count("factory function returned nullptr") == 2


MYPY = """
[mypy]
python_version = 3.10
strict = True
warn_unreachable = True
# `make lint` needs some comments that are of no use here, because it does not know the types.
warn_unused_ignores = False
explicit_package_bases = True
# Errors in the files that are asked for, not in what they import.
follow_imports = silent

[mypy-tensorrt.*,tensorrt_bindings.*]
ignore_errors = True
"""


# The stubs were generated, with mistakes that hide what they are to show. Each is put right by its pattern.
REPAIRS = (
    # A parameter cannot have the name of a keyword.
    (r" in: ", " in_: "),
    # A parameter without a default after one that has one.
    (r"channel_axis: int\)", "channel_axis: int = ...)"),
    # Inside the module `bool` is a constant of TensorRT, so that an annotation with it would mean anything.
    (r"(?m)(?<=-> )bool:$", "builtins.bool:"),
    (r"\A", "import builtins\n"),
    # Python iterates over what has `__getitem__`; mypy wants to be told.
    (r"(?m)^class Dims:$", "class Dims:\n    def __iter__(self) -> typing.Iterator[int]: ..."),
)


@pytest.fixture(scope="module")
def types(tmp_path_factory):
    """The stubs, in a form that mypy can read."""
    copied = tmp_path_factory.mktemp("types")
    for package in ("tensorrt", "tensorrt_bindings"):
        shutil.copytree(trt_rtx.folder("types") / package, copied / package)
    path = copied / "tensorrt_bindings" / "tensorrt.pyi"
    text = path.read_text()
    for pattern, repaired in REPAIRS:
        text, count = re.subn(pattern, repaired, text)
        assert count, f"{pattern} is not in the stubs any more"
    path.write_text(text)
    return copied


def _mypy(files, types, scratch):
    """The errors of mypy in some files, with the types of TensorRT in sight."""
    (scratch / "mypy.ini").write_text(MYPY)
    command = [sys.executable, "-m", "mypy", "--no-error-summary", f"--cache-dir={scratch}", f"--config-file={scratch / 'mypy.ini'}"]
    environment = {**os.environ, "MYPYPATH": f"{types}{os.pathsep}{repository.SOURCE.parent}"}
    ended = subprocess.run(
        [*command, *map(str, files)], env=environment, cwd=repository.ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    return [line for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]


def test_the_engine_fits_the_stubs(types, tmp_path):
    """Nothing is wrong in the runtime's TensorRT files to a mypy that knows the types of TensorRT 10.13."""
    assert _mypy([repository.ROOT / name for name in ENGINE_FILES], types, tmp_path) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("trt.Builder(trt.Logger()).no_such_name", "has no attribute"),
        ("trt.Builder(1)", "incompatible type"),
        ("trt.NoSuchClass", "has no attribute"),
        ("def f(context: trt.IExecutionContext) -> str:\n    return context.execute_async_v3(0)", "Incompatible return value"),
    ],
)
def test_the_types_are_in_sight(wrong, message, types, tmp_path):
    """A name, an argument or a result that TensorRT does not have is found by mypy: it is not looking at `Any`."""
    (tmp_path / "sample.py").write_text(f"import tensorrt as trt\n\n{wrong}\n")
    told = _mypy([tmp_path / "sample.py"], types, tmp_path)
    assert len(told) == 1, told
    assert message in told[0]


def test_the_manifests_are_json_of_names():
    """A manifest holds its source, its version and names; no text of the bindings' documentation."""
    for version in LIVE:
        assert set(manifest(version)) == {"source", "version", "classes", "functions", "constants"}
        assert "\\n" not in json.dumps(manifest(version))
