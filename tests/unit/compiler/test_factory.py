"""`python:MODULE:FUNCTION`: where the module is found, and what a factory may do wrong."""
# ruff: noqa: TID253 - the tests of what loads torch load torch

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from network_builders import binary_spec, frames, input_spec, model_spec, run_torch, tiny_network
from safetensors.torch import save_file

from edgekit.compiler.load.factory import open_factory
from edgekit.errors import CatalogError, ModelError

COUNT = itertools.count()
NETWORK = """\
import torch
from torch import nn

def build(outputs=3, side=8):
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(side), nn.Flatten(), nn.Linear(3 * side * side, outputs))
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes source as a module of a new name in the working directory; the module is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    written = []

    def write(source, name=None):
        name = name or f"edgekit_factory_{next(COUNT)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        written.append(name)
        return name

    before = list(sys.path)
    yield write
    assert sys.path == before
    for name in written:
        sys.modules.pop(name, None)


def opened(argument, model=None, spec=None):
    return open_factory(argument, model or model_spec(f"python:{argument}"), spec or input_spec())


def test_a_factory_of_the_working_directory_answers_as_itself(module):
    """With the arguments of the recipe, and without weights where the recipe names none."""
    name = module(NETWORK)
    spec = input_spec()
    tensors = frames(spec)
    found = opened(f"{name}:build", model_spec(arguments={"side": 4})).logits(tensors, lambda _: None)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 3))
    assert found == pytest.approx(run_torch(network, spec, tensors), abs=1e-6)


def test_a_factory_on_the_python_path_is_found(tmp_path):
    """As PYTHONPATH has it, from another working directory."""
    (tmp_path / "library").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "library" / "nets.py").write_text(NETWORK)
    code = textwrap.dedent("""
        from edgekit.compiler.load.factory import open_factory
        from edgekit.catalog.recipe import ModelSpec
        from edgekit.schema.model_io import InputSpec
        model = ModelSpec(source="python:nets:build", labels=("a", "b", "c"), task="multiclass")
        spec = InputSpec(color="grey", channels=3, resize=(32, 32), mean=(0.0,) * 3, std=(1.0,) * 3)
        print(type(open_factory("nets:build", model, spec)).__name__)
    """)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "library")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.stdout, done.returncode) == ("TorchModel\n", 0), done.stderr


def test_a_factory_may_import_when_it_is_called(module):
    """The working directory stays on the path until the module is built."""
    helper = module(NETWORK)
    name = module(f"def build():\n    from {helper} import build\n    return build()\n")
    assert opened(f"{name}:build").logits(frames(input_spec()), lambda _: None).shape == (2, 3)


def test_weights_are_loaded_into_what_the_factory_builds(module, tmp_path):
    """And they decide what it answers."""
    name = module(NETWORK)
    trained = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(192, 3))
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    spec = input_spec()
    tensors = frames(spec)
    found = opened(f"{name}:build", model_spec(weights=tmp_path / "w.safetensors")).logits(tensors, lambda _: None)
    assert found == pytest.approx(run_torch(trained, spec, tensors), abs=1e-6)


def test_weights_that_do_not_fit_are_refused(module, tmp_path):
    """As for every source."""
    name = module(NETWORK)
    save_file(tiny_network().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="does not fit the architecture"):
        opened(f"{name}:build", model_spec(weights=tmp_path / "w.safetensors"))


def test_a_half_precision_model_becomes_float32(module):
    """The reference is the FP32 model."""
    name = module(NETWORK + "\n\ndef half():\n    return build().half()\n")
    assert opened(f"{name}:half").logits(frames(input_spec()), lambda _: None).dtype == "float32"


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_binary_factory_has_one_logit_or_two(module, outputs):
    """The labels are two either way."""
    name = module(NETWORK)
    source = opened(f"{name}:build", binary_spec(arguments={"outputs": outputs}))
    assert source.logits(frames(input_spec()), lambda _: None).shape == (2, outputs)


@pytest.mark.parametrize("argument", ["nets", "nets:", ":build", ":"])
def test_an_argument_without_module_or_function_is_refused(argument):
    """The recipe's author must act."""
    with pytest.raises(CatalogError, match="is not python:MODULE:FUNCTION"):
        opened(argument)


NO_MODULE = {
    "missing": (None, "No module named"),
    "missing-library": ("import edgekit_no_such_library", "No module named 'edgekit_no_such_library'"),
    "syntax-error": ("def build(:", "SyntaxError"),
    "raises": ("raise ValueError('no licence')", "ValueError: no licence"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
}


@pytest.mark.parametrize(("source", "message"), NO_MODULE.values(), ids=NO_MODULE)
def test_a_module_that_cannot_be_imported_is_named(module, source, message):
    """Whatever the user's own code does, the message is edgekit's."""
    name = "edgekit_missing_module" if source is None else module(source)
    with pytest.raises(ModelError, match=f"the module '{name}' cannot be imported: .*{message}"):
        opened(f"{name}:build")


@pytest.mark.parametrize("name", ["..nets", ".nets", "nets\0", "nets/build"])
def test_a_name_that_is_no_module_is_refused(name):
    """The import system raises other kinds for these."""
    with pytest.raises(ModelError, match="cannot be imported"):
        opened(f"{name}:build")


def test_a_missing_function_names_the_nearest(module):
    """Only what the module defines itself is listed."""
    name = module(NETWORK)
    with pytest.raises(ModelError, match=f"{name} has no function 'biuld'") as caught:
        opened(f"{name}:biuld")
    assert caught.value.hint == "did you mean 'build'? available: build"


FACTORIES = {
    "raises": ("def build():\n    raise KeyError('depth')", "failed: KeyError: 'depth'"),
    "exits": ("import sys\ndef build():\n    sys.exit('no licence')", "failed: SystemExit: no licence"),
    "returns-nothing": ("def build():\n    pass", "returned NoneType, not a torch.nn.Module"),
    "returns-the-class": ("import torch\ndef build():\n    return torch.nn.Linear", "returned type, not a torch.nn.Module"),
    "returns-a-function": ("def build():\n    return lambda x: x", "returned function, not a torch.nn.Module"),
    "is-no-function": ("build = 3", "has no function 'build'"),
}


@pytest.mark.parametrize(("source", "message"), FACTORIES.values(), ids=FACTORIES)
def test_a_factory_that_makes_no_module_is_refused(module, source, message):
    """By what it did."""
    name = module(source)
    with pytest.raises(ModelError, match=message):
        opened(f"{name}:build")


def test_an_argument_the_factory_does_not_take_is_refused(module):
    """The message is the factory's own TypeError."""
    name = module(NETWORK)
    with pytest.raises(ModelError, match="unexpected keyword argument 'depth'"):
        opened(f"{name}:build", model_spec(arguments={"depth": 3}))


MODULES = {
    "other-frames": ("nn.Flatten(), nn.Linear(10, 3)", "the model fails on a frame of 3 × 32 × 32: RuntimeError"),
    "other-labels": ("nn.AdaptiveAvgPool2d(1), nn.Flatten()", None),
    "five-outputs": ("nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5)", "has 5 outputs, the recipe names 3 labels"),
    "a-map": ("nn.Conv2d(3, 3, 1)", r"returns a tensor of shape \(1, 3, 32, 32\), not one vector"),
    "outputs-as-a-batch": (
        "nn.AdaptiveAvgPool2d(1), nn.Flatten(0, 1), nn.Flatten()",
        r"returns a tensor of shape \(3, 1\), not one vector",
    ),
    "lstm": ("nn.Flatten(1, 2), nn.LSTM(32, 3)", "returns no single tensor"),
}


@pytest.mark.parametrize(("layers", "message"), MODULES.values(), ids=MODULES)
def test_an_output_that_is_not_one_logit_a_label_is_refused(module, layers, message):
    """Before anything is exported."""
    name = module(f"from torch import nn\ndef build():\n    return nn.Sequential({layers})\n")
    if message is None:
        assert opened(f"{name}:build").logits(frames(input_spec()), lambda _: None).shape == (2, 3)
        return
    with pytest.raises(ModelError, match=message):
        opened(f"{name}:build")


@pytest.mark.parametrize("last", [torch.nn.Softmax(dim=1), torch.nn.Sigmoid()], ids=["softmax", "sigmoid"])
def test_a_model_that_returns_probabilities_is_refused(module, tmp_path, last):
    """They would be taken for logits, and a softmax of a softmax makes every answer unsure."""
    name = module(f"{NETWORK}\n\ndef sure():\n    return nn.Sequential(build(), nn.{last})\n")
    with pytest.raises(ModelError, match=f"ends in a {type(last).__name__}, so it returns probabilities"):
        opened(f"{name}:sure").export(tmp_path / "net.onnx")


def test_a_model_that_cannot_be_exported_says_so(module, tmp_path):
    """Python that depends on the pixels cannot become a graph."""
    name = module(f"""{NETWORK}

class Choosing(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = build()

    def forward(self, x):
        return self.net(x) if x.sum() > 0 else -self.net(x)


def choosing():
    return Choosing()
""")
    with pytest.raises(ModelError, match="PyTorch cannot export the model to ONNX"):
        opened(f"{name}:choosing").export(tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_infinite_logits_are_refused(module):
    """A reference that answers with nothing cannot be compared with anything."""
    name = module(f"{NETWORK}\n\ndef broken():\n    net = build()\n    nn.init.constant_(net[2].bias, float('nan'))\n    return net\n")
    with pytest.raises(ModelError, match="NaN or infinite logits"):
        opened(f"{name}:broken").logits(frames(input_spec()), lambda _: None)


BATCHED = """
class Batched(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.net = kind, build()

    def forward(self, x):
        if self.kind == "one" and len(x) != 1:
            raise ValueError("one frame at a time")
        y = self.net(x)
        return y - y.mean(0) + y[0] if self.kind == "mixed" else y


def batched(kind):
    return Batched(kind)
"""


@pytest.mark.parametrize("kind", ["any", "one", "mixed"])
def test_every_frame_is_answered_as_if_alone(module, kind):
    """The device sees one frame; a model whose batch mixes frames, or that takes one only, is run one by one."""
    name = module(NETWORK + BATCHED)
    source = opened(f"{name}:batched", model_spec(arguments={"kind": kind}))
    tensors = frames(input_spec(), count=5)
    alone = [source.logits(tensors[index : index + 1], lambda _: None) for index in range(5)]
    done = []
    assert source.logits(tensors, done.append) == pytest.approx(torch.cat([torch.from_numpy(row) for row in alone]).numpy(), abs=1e-6)
    assert done == ([5] if kind == "any" else [1, 2, 3, 4, 5])
