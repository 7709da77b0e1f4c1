"""control: the maps of the same network with random weights, which must not look like its own.

After Adebayo et al. 2018 (Sanity Checks for Saliency Maps): where a map stays as it is when the weights mean nothing, it shows the picture and not the model.

Rules this file keeps:

1. A weight is shuffled, seeded: every value stays, so layers keep their scale, and none stands where training put it.
2. Drawn are the head alone (the weights nearest to the map, on features that stay right: the harder control) and all weights of the network.
3. The explained float graph is run, not quantized: what is asked is whether likeness can tell maps apart, not what an engine does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import EngineSpec
from edgekit.compiler import graph as g
from edgekit.compiler.oracle import open_oracle
from edgekit.compiler.progress import Progress
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage
from edgekit.errors import ModelError, NotFiniteError
from edgekit.runtime.engines.onnxruntime import ROLE

if TYPE_CHECKING:
    import onnx_ir as ir

HEAD, ALL = "head", "all"
DRAWS = ((HEAD, 0), (HEAD, 1), (HEAD, 2), (ALL, 0))
"""Which weights are random, and the seed."""

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_ON_THE_WAY = frozenset({"Transpose", "Reshape", "Identity", "Cast", "Unsqueeze", "Squeeze"})
_MEMBER = "model.onnx"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RandomMaps:
    """What one random network drew.

    Attributes:
        what: Which weights are random.
        seed: Of the weights.
        maps: float32 (frames, outputs, rows, columns); None where its answers were no numbers.
    """

    what: str
    seed: int
    maps: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ControlStage(Stage[tuple[RandomMaps, ...]]):
    """Draws random networks and runs them.

    Attributes:
        graph: The explained float graph, with a map.
        tensors: uint8 (frames, height, width, channels).
        tensors_sha256: Of the split the frames are from.
        indices: Which frames of it.
    """

    name: ClassVar[str] = "control"
    graph: ExplainedGraph
    tensors: NDArray[np.uint8]
    tensors_sha256: str
    indices: tuple[int, ...]

    def requires(self) -> Mapping[str, object]:
        return {
            "graph": self.graph.sha256,
            "frames": self.tensors_sha256,
            "indices": list(self.indices),
            "draws": [list(draw) for draw in DRAWS],
            "versions": versions("onnxruntime", "onnx-ir", "numpy"),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        drawn = []
        for index, (what, seed) in enumerate(DRAWS):
            content = randomize(self.graph.path, what=what, seed=seed)
            maps = self._maps(content, progress, index)
            drawn.append({"what": what, "seed": seed, "finite": maps is not None})
            if maps is not None:
                np.save(folder / f"{index}.npy", maps)
        (folder / "draws.json").write_text(json.dumps(drawn))

    def ensures(self, folder: Path) -> tuple[RandomMaps, ...]:
        drawn = json.loads((folder / "draws.json").read_text())
        return tuple(
            RandomMaps(
                what=row["what"], seed=row["seed"], maps=np.load(folder / f"{index}.npy", allow_pickle=False) if row["finite"] else None
            )
            for index, row in enumerate(drawn)
        )

    def _maps(self, content: bytes, progress: Progress, draw: int) -> NDArray[np.float32] | None:
        spec = EngineSpec(
            name="onnxruntime", files={ROLE: _MEMBER}, minimum_version="0", precision="f32", settings={}, outputs=self.graph.outputs
        )
        engine = open_oracle(spec, {_MEMBER: memoryview(content)})
        # A recurrent network is shown each frame as the first of a clip: the states of its own are of other weights.
        state = engine.initial_state()
        maps = []
        for done, index in enumerate(self.indices):
            try:
                raw = engine.infer(np.ascontiguousarray(self.tensors[index : index + 1]), state)
            except NotFiniteError:
                return None
            if raw.cam is None or not np.isfinite(raw.cam).all():
                return None
            maps.append(raw.cam)
            progress.step(draw * len(self.indices) + done + 1, len(DRAWS) * len(self.indices))
        return np.stack(maps)


def randomize(path: Path, *, what: str, seed: int) -> bytes:
    """The graph with shuffled weights.

    Args:
        path: An ONNX file with a map as its second output.
        what: `HEAD` or `ALL`.
        seed: Of the shuffling.

    Raises:
        ModelError: There are no weights to shuffle.
    """
    import onnx_ir as ir

    model = ir.load(path)
    chosen = _head(model.graph.outputs[1]) if what == HEAD else [weight for node in model.graph for weight in _weights(node)]
    distinct = list({id(value): value for value in chosen}.values())
    if not distinct:
        raise ModelError(f"the graph has no weights of which {what} could be random", hint="please report the architecture")
    random = np.random.default_rng(seed)
    for value in distinct:
        array = g.constant(value)
        if array is None:
            raise ModelError(f"the weight {value.name!r} has no value", hint="please report the architecture")
        _replace(model.graph, value, random.permutation(array.ravel()).reshape(array.shape))
    content: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return content


def _head(output: ir.Value) -> list[ir.Value]:
    """The weights nearest to an output: on every way up from it, the first layer that has some."""
    found: list[ir.Value] = []
    waiting, visited = [output], set[int]()
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if node is None or id(node) in visited:
            continue
        visited.add(id(node))
        weights = _weights(node)
        found += weights
        if not weights:
            waiting += [item for item in node.inputs if item is not None]
    return found


def _weights(node: ir.Node) -> list[ir.Value]:
    """The constants a layer multiplies its input by; a bias is none."""
    if node.op_type not in _WEIGHTED:
        return []
    factors = [_source(value) for value in node.inputs[:2] if value is not None]
    return [value for value in factors if (array := g.constant(value)) is not None and array.dtype.kind == "f" and array.size > 1]


def _source(value: ir.Value) -> ir.Value:
    """Where a constant comes from that is turned or reshaped on its way."""
    while (
        g.constant(value) is None and (node := value.producer()) is not None and node.op_type in _ON_THE_WAY and node.inputs[0] is not None
    ):
        value = node.inputs[0]
    return value


def _replace(graph: ir.Graph, value: ir.Value, array: NDArray[np.generic]) -> None:
    fresh = g.add_constant(graph, f"{value.name}/shuffled", array)
    for use in list(value.uses()):
        use.node.replace_input_with(use.idx, fresh)
