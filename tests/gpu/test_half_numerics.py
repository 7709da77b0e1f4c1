"""What a GPU makes of the float16 that edgekit writes, against what the numerical oracle said of it on a CPU.

TensorRT for Jetson does not run here. NVIDIA's other kernels do: cuDNN and cuBLAS by way of PyTorch, each layer in the type the graph gives it, and ONNX Runtime's
CUDA provider. They multiply float16 on the same kind of unit and sum in an order of their own, as TensorRT does.

Does not prove what TensorRT's kernels round: it fuses layers, and then rounds less often.
"""

from __future__ import annotations

import pytest
from gpu import need_driver

ARCHITECTURES = ("resnet18", "mobilenetv3_small_050", "densenet121", "vit_tiny_patch16_224", "convnext_atto")
"""One of a kind: residual sums, depthwise convolutions with squeeze and excitation, dense concatenations, attention, layer normalization between convolutions."""


MACHINES = ("torch-cuda", "onnxruntime-cuda")
ENGINES = ("tensorrt-fp16", "tensorrt-int8")


@pytest.fixture(scope="module", params=MACHINES)
def machine(request):
    """What runs a graph on the GPU; where there is none, nothing heavy is imported to find that out."""
    need_driver()
    pytest.importorskip("onnx")
    import half_checks

    return half_checks.MACHINES[request.param]()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The graphs of an architecture, each made once, for whichever machine asks first."""
    made, graphs = {}, {}

    def make(architecture, engine):
        import half_checks

        if architecture not in graphs:
            graphs[architecture] = half_checks.explained(architecture, 224, tmp_path_factory.mktemp(architecture))
        if (architecture, engine) not in made:
            made[architecture, engine] = half_checks.write(*graphs[architecture], engine, tmp_path_factory.mktemp(engine))
        return made[architecture, engine]

    return make


def test_float16_is_rounded_as_in_the_oracle(machine, record_property):
    """Rounding to float16 and one operation after it give the oracle's numbers exactly, from below the smallest to beyond the largest."""
    from half_checks import check_edges

    check_edges(machine, record_property)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_oracle_foresaw_the_gpus_answers(machine, written, architecture, engine, record_property):
    """On golden frames the GPU is as near to the oracle as a bundle asks of a device."""
    from half_checks import check_answers

    graph = written(architecture, engine)
    check_answers(graph, machine(graph.content), record_property)
