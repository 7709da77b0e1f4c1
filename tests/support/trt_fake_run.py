"""The behaviour of the fake's running half: runtime, engine, execution context, inspector.

Rules this file keeps:

1. Work is put into the stream of the fake GPU and done when that stream is waited for, on the addresses that were set when it was put there.
2. Where TensorRT answers with None or False and a line in the log, so does this. What would be undefined behaviour is a `MisuseError`.
3. An input's shape is set before its address: later versions of the shape would leave the address of a buffer that was sized for another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from fake_cuda import ALIGNMENT, FakeCuda, MisuseError
from trt_fake_api import Method, always
from trt_fake_build import Table, check_type, host_memory, make
from trt_fake_world import NUMPY_TYPES, Arrays, FakeEngine, FakeTensor, World


def table(world: World) -> Table:
    """Class name → member name → what it does."""
    return {
        "Runtime": _runtime(world),
        "ICudaEngine": _engine(world),
        "IExecutionContext": {**_context_settings(world), **_context_shapes(world)},
        "EngineInspector": _inspector(world),
        "IHostMemory": {},
        "Dims": _dims(),
    }


def _runtime(world: World) -> Mapping[str, Method]:
    def construct(self: Any, logger: Any) -> None:
        check_type(world, "Runtime.__init__", logger, "ILogger")
        if "runtime" in world.fail:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._.update(logger=logger, engine_host_code_allowed=False, max_threads=1)

    def deserialize(self: Any, serialized_engine: Any) -> Any:
        logger = self._["logger"]
        try:
            content = world.read_plan(bytes(memoryview(serialized_engine)))
        except ValueError as error:
            world.log(logger, "ERROR", str(error))
            return None
        engine = world.engine_for(content["onnx"])
        if "deserialize" in world.fail or engine is None:
            world.log(logger, "ERROR", "Cuda failure: out of memory")
            return None
        return make(world, "ICudaEngine", logger=logger, engine=engine, content=content)

    return {
        "__init__": construct,
        "deserialize_cuda_engine": deserialize,
        "engine_host_code_allowed=": lambda self, value: self._.update(engine_host_code_allowed=value),
        "max_threads=": lambda self, value: self._.update(max_threads=value),
        "num_DLA_cores": always(0),
    }


def _engine(world: World) -> Mapping[str, Method]:
    def item(self: Any, name: str) -> FakeTensor:
        found = self._["engine"].tensor(name)
        if found is None:
            raise MisuseError(f"the engine has no input or output {name!r}")
        return found

    def mode(self: Any, name: str) -> Any:
        modes = world.module.TensorIOMode
        described: FakeEngine = self._["engine"]
        return modes.NONE if described.tensor(name) is None else modes.INPUT if described.is_input(name) else modes.OUTPUT

    def context(self: Any, strategy: Any = None) -> Any:
        if "context" in world.fail:
            world.log(self._["logger"], "ERROR", "Cuda failure: out of memory")
            return None
        return make(world, "IExecutionContext", owner=self, engine=self, logger=self._["logger"], addresses={}, shapes={}, warm=False)

    def everything(self: Any) -> tuple[FakeTensor, ...]:
        return (*self._["engine"].inputs, *self._["engine"].outputs)

    return {
        "num_io_tensors": lambda self: len(everything(self)),
        "get_tensor_name": lambda self, index: everything(self)[index].name,
        "get_tensor_mode": mode,
        "get_tensor_dtype": lambda self, name: getattr(world.module.DataType, item(self, name).dtype),
        "get_tensor_shape": lambda self, name: make(world, "Dims", shape=item(self, name).shape),
        "get_tensor_location": lambda self, name: item(self, name) and world.module.TensorLocation.DEVICE,
        "get_tensor_format": lambda self, name: item(self, name) and world.module.TensorFormat.LINEAR,
        "num_layers": lambda self: len(self._["engine"].layers),
        "num_optimization_profiles": always(1),
        "device_memory_size": lambda self: self._["engine"].device_memory_bytes,
        "device_memory_size_v2": lambda self: self._["engine"].device_memory_bytes,
        "name": always("Unnamed Network 0"),
        "create_execution_context": context,
        "create_engine_inspector": lambda self: make(world, "EngineInspector", engine=self._["engine"]),
        "serialize": lambda self: host_memory(
            world, world.plan({key: value for key, value in self._["content"].items() if key != "version"})
        ),
    }


def _context_settings(world: World) -> Mapping[str, Method]:
    def nothing(self: Any, value: Any) -> None:
        self._["profiler"] = value

    def select_profile(_: Any, profile_index: int, stream_handle: int) -> bool:
        check_type(world, "IExecutionContext.set_optimization_profile_async", stream_handle, "int")
        return profile_index == 0

    return {
        "active_optimization_profile": always(0),
        "profiler=": nothing,
        "set_optimization_profile_async": select_profile,
        "execute_async_v3": lambda self, stream_handle: _execute(world, self, stream_handle),
    }


def _context_shapes(world: World) -> Mapping[str, Method]:
    def set_shape(self: Any, name: str, shape: Any) -> bool:
        described: FakeEngine = self._["engine"]._["engine"]
        wanted = described.tensor(name) if described.is_input(name) else None
        given = tuple(int(side) for side in shape)
        if (
            wanted is None
            or len(given) != len(wanted.shape)
            or any(open_ not in (-1, side) for side, open_ in zip(given, wanted.shape, strict=True))
        ):
            world.log(self._["logger"], "ERROR", f"Set dimension {given} for tensor {name} does not match any profile")
            return False
        if name in self._["addresses"] and given != self._["shapes"].get(name, wanted.shape):
            raise MisuseError(f"the shape of {name!r} is set after its address")
        self._["shapes"][name] = given
        return True

    def set_address(self: Any, name: str, memory: int) -> bool:
        check_type(world, "IExecutionContext.set_tensor_address", memory, "int")
        if self._["engine"]._["engine"].tensor(name) is None:
            world.log(self._["logger"], "ERROR", f"Given invalid tensor name: {name}")
            return False
        self._["addresses"][name] = memory
        return True

    return {
        "set_input_shape": set_shape,
        "set_tensor_address": set_address,
        "get_tensor_address": lambda self, name: self._["addresses"].get(name, 0),
        "get_tensor_shape": lambda self, name: make(world, "Dims", shape=_shape(self, self._["engine"]._["engine"].tensor(name))),
        "infer_shapes": lambda self: [item.name for item in self._["engine"]._["engine"].inputs if -1 in _shape(self, item)],
        "all_binding_shapes_specified": lambda self: all(-1 not in _shape(self, item) for item in self._["engine"]._["engine"].inputs),
    }


def _shape(context: Any, item: FakeTensor) -> tuple[int, ...]:
    shape: tuple[int, ...] = context._["shapes"].get(item.name, item.shape)
    return shape


def _execute(world: World, context: Any, stream: int) -> bool:
    check_type(world, "IExecutionContext.execute_async_v3", stream, "int")
    if world.cuda is None:
        raise MisuseError("fake_tensorrt(..., cuda=...) is needed where an engine is executed")
    described: FakeEngine = context._["engine"]._["engine"]
    capturing = world.cuda.capturing(stream)
    problem = _execution_problem(world, context, described, capturing=capturing)
    if problem is not None:
        world.log(context._["logger"], "ERROR", problem)
        return False
    context._["warm"] = context._["warm"] or not capturing
    addresses, shapes = dict(context._["addresses"]), {item.name: _shape(context, item) for item in described.inputs}
    cuda = world.cuda
    cuda.enqueue(stream, lambda: _compute(cuda, described, addresses, shapes))
    return True


def _execution_problem(world: World, context: Any, described: FakeEngine, *, capturing: bool) -> str | None:
    """Why nothing is put into the stream, in the words of the log."""
    for item in (*described.inputs, *described.outputs):
        address = context._["addresses"].get(item.name, 0)
        if not address:
            return f"Address is not set for {'input' if described.is_input(item.name) else 'output'} tensor {item.name}"
        if address % ALIGNMENT:
            raise MisuseError(f"the address of {item.name!r} is not a multiple of {ALIGNMENT}")
        if described.is_input(item.name) and -1 in _shape(context, item):
            return f"Not all shapes are specified: {item.name}"
    if capturing and not context._["warm"]:
        return "The first execution does deferred work, which cannot be captured"
    return (
        "Cuda failure: unspecified launch failure" if "execute" in world.fail or (capturing and "execute_capture" in world.fail) else None
    )


def _compute(cuda: FakeCuda, described: FakeEngine, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Reads the inputs out of the GPU's memory, computes, and writes the outputs into it."""
    taken: Arrays = {}
    for item in described.inputs:
        kind = np.dtype(NUMPY_TYPES[item.dtype])
        size = int(np.prod(shapes[item.name], dtype=np.int64)) * kind.itemsize
        taken[item.name] = cuda.memory(addresses[item.name], size).copy().view(kind).reshape(shapes[item.name])
    given = described.compute(taken)
    for item in described.outputs:
        result = np.ascontiguousarray(given[item.name], dtype=NUMPY_TYPES[item.dtype])
        if -1 not in item.shape and result.shape != item.shape:
            raise MisuseError(f"the computation gives {item.name!r} the shape {result.shape}, the engine says {item.shape}")
        cuda.memory(addresses[item.name], result.nbytes)[:] = result.reshape(-1).view(np.uint8)


def _inspector(world: World) -> Mapping[str, Method]:
    def information(self: Any, format: Any) -> str:  # noqa: A002 - the name of the API
        check_type(world, "EngineInspector.get_engine_information", format, "LayerInformationFormat")
        described: FakeEngine = self._["engine"]
        names = [item.name for item in (*described.inputs, *described.outputs)]
        if format == world.module.LayerInformationFormat.ONELINE:
            return "\n".join(str(layer["Name"]) for layer in described.layers)
        # The key was renamed in TensorRT 11.
        return json.dumps(
            {"Layers": [dict(layer) for layer in described.layers], "I/O Tensors" if world.major >= 11 else "Bindings": names}
        )

    return {"get_engine_information": information}


def _dims() -> Mapping[str, Method]:
    def side(self: Any, arg0: int) -> int:
        value: int = self._["shape"][arg0]
        return value

    return {
        "__init__": lambda self, shape=(): self._.update(shape=tuple(shape)),
        "__len__": lambda self: len(self._["shape"]),
        "__getitem__": side,
    }
