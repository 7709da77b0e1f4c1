"""The behaviour of the fake's building half: builder, network, parser, configuration, timing cache.

Rules this file keeps:

1. Only names: whether a version has a method is the manifest's business (see `trt_fake_api`).
2. Where TensorRT answers with None or False and a line in the log, so does this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from fake_cuda import MisuseError
from trt_fake_api import FakeObject, Method, always
from trt_fake_world import NUMPY_TYPES, World

Table = Mapping[str, Mapping[str, Method]]

# By what may be put in: a setting that comes as text, for instance, is refused, as by the bindings.
_CONFIG_TYPES = {
    "DLA_core": "int",
    "avg_timing_iterations": "int",
    "builder_optimization_level": "int",
    "default_device_type": "DeviceType",
    "engine_capability": "EngineCapability",
    "flags": "int",
    "hardware_compatibility_level": "HardwareCompatibilityLevel",
    "max_aux_streams": "int",
    "max_num_tactics": "int",
    "profiling_verbosity": "ProfilingVerbosity",
    "progress_monitor": "IProgressMonitor",
    "tiling_optimization_level": "TilingOptimizationLevel",
}
_CONFIG_DEFAULTS: Mapping[str, Any] = {
    "DLA_core": -1,
    "avg_timing_iterations": 1,
    "builder_optimization_level": 3,
    "max_aux_streams": -1,
    "flags": 0,
}
# A strongly typed network takes its precisions from the graph and refuses these.
_PRECISION_FLAGS = ("FP16", "BF16", "INT8", "FP8", "INT4", "FP4")


def make(world: World, kind: str, **content: Any) -> Any:
    """An object that comes out of a call and not out of a constructor."""
    made = getattr(world.module, kind).__new__(getattr(world.module, kind))
    made._ = content
    return made


def check_type(world: World, what: str, value: Any, kind: str) -> None:
    """Refuses a value as the bindings do.

    Raises:
        TypeError: It is not of the kind, or its constructor was never called.
    """
    wanted = int if kind == "int" else getattr(world.module, kind)
    if not isinstance(value, wanted):
        raise TypeError(f"{what}: incompatible function arguments: {type(value).__name__}, not {kind}")
    if isinstance(value, FakeObject) and not hasattr(value, "_"):
        raise TypeError(f"{kind}.__init__() must be called when overriding __init__")


def table(world: World) -> Table:
    """Class name → member name → what it does."""

    def log(_: Any, severity: Any, msg: str) -> None:
        world.messages.append((severity.name, msg))

    return {
        "ILogger": {"log": log},
        "Logger": {
            "__init__": lambda self, min_severity=None: self._.update(min_severity=min_severity or world.module.ILogger.Severity.WARNING),
            "log": log,
            "min_severity=": lambda self, value: self._.update(min_severity=value),
        },
        "Builder": _builder(world),
        "IBuilderConfig": _config(world),
        "INetworkDefinition": _network(world),
        "ITimingCache": _timing_cache(world),
        "OnnxParser": _parser(world),
        "ParserError": _parser_error(),
        "IProgressMonitor": {name: always(True) for name in ("phase_start", "phase_finish", "step_complete")},
        "IOptimizationProfile": _profile(),
        "ITensor": {},
    }


def _builder(world: World) -> Mapping[str, Method]:
    def construct(self: Any, logger: Any) -> None:
        check_type(world, "Builder.__init__", logger, "ILogger")
        if "builder" in world.fail:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._.update(logger=logger, max_threads=1)

    def create_network(self: Any, flags: int = 0) -> Any:
        check_type(world, "Builder.create_network", flags, "int")
        known = sum(1 << value for value in {int(member) for member in world.module.NetworkDefinitionCreationFlag.__members__.values()})
        if flags & ~known:
            raise MisuseError(f"create_network({flags}) sets bits that TensorRT {world.version} does not know")
        return make(world, "INetworkDefinition", logger=self._["logger"], flags=flags, onnx=None, name="Unnamed Network 0")

    def config(self: Any) -> Any:
        return make(world, "IBuilderConfig", owner=self, pools={}, profiles=[], cache=None, **_CONFIG_DEFAULTS)

    return {
        "__init__": construct,
        "create_network": create_network,
        "create_builder_config": config,
        "create_optimization_profile": lambda _: make(world, "IOptimizationProfile", shapes={}),
        "build_serialized_network": lambda self, network, config: _build(world, self, network, config),
        "platform_has_fast_fp16": always(True),
        "platform_has_fast_int8": always(True),
        "num_DLA_cores": always(0),
        "max_threads=": lambda self, value: self._.update(max_threads=value),
    }


def _build(world: World, builder: Any, network: Any, config: Any) -> Any:
    check_type(world, "Builder.build_serialized_network", network, "INetworkDefinition")
    check_type(world, "Builder.build_serialized_network", config, "IBuilderConfig")
    logger = builder._["logger"]
    problem = _build_problem(world, network, config)
    monitor = config._.get("progress_monitor")
    if problem is None and monitor is not None and not _report(monitor):
        problem = "Build was cancelled by the progress monitor"
    if problem is not None:
        world.log(logger, "ERROR", problem)
        return None
    if config._["cache"] is not None:
        config._["cache"]._["content"] += network._["onnx"].encode()
    settings = {key: str(value) for key, value in sorted(config._.items()) if key in _CONFIG_TYPES and key != "progress_monitor"}
    return host_memory(world, world.plan({"onnx": network._["onnx"], "network_flags": network._["flags"], "settings": settings}))


def _build_problem(world: World, network: Any, config: Any) -> str | None:
    """Why nothing can be built, in the words of the log."""
    engine = None if network._["onnx"] is None else world.engine_for(network._["onnx"])
    if engine is None:
        return "Network must have at least one output"
    profiled = {name for profile in config._["profiles"] for name in profile._["shapes"]}
    if any(-1 in item.shape and item.name not in profiled for item in engine.inputs):
        return "Network has dynamic or shape inputs, but no optimization profile has been defined"
    if _strongly_typed(world, network) and any(config._["flags"] & 1 << flag for flag in _precision_bits(world)):
        return "Precision flags cannot be set for a strongly typed network"
    return "Could not find any implementation for node conv" if "build" in world.fail else None


def _report(monitor: Any) -> bool:
    """Tells the monitor of a build in two steps; whether it lets it go on."""
    monitor.phase_start("Building Engine", None, 2)
    going = monitor.step_complete("Building Engine", 0) and monitor.step_complete("Building Engine", 1)
    monitor.phase_finish("Building Engine")
    return going


def _strongly_typed(world: World, network: Any) -> bool:
    flag = world.module.NetworkDefinitionCreationFlag.__members__.get("STRONGLY_TYPED")
    return world.major >= 11 or (flag is not None and bool(network._["flags"] & 1 << int(flag)))


def _precision_bits(world: World) -> list[int]:
    return [int(member) for name, member in world.module.BuilderFlag.__members__.items() if name in _PRECISION_FLAGS]


def host_memory(world: World, data: bytes) -> Any:
    kind = world.module.IHostMemory
    return kind.__new__(kind, data)


def _config(world: World) -> Mapping[str, Method]:
    def setter(name: str, kind: str) -> Method:
        def write(self: Any, value: Any) -> None:
            if not (name == "progress_monitor" and value is None):
                check_type(world, f"IBuilderConfig.{name}", value, kind)
            self._[name] = value

        return write

    def flagged(change: Callable[[int, int], int]) -> Method:
        def write(self: Any, flag: Any) -> None:
            check_type(world, "IBuilderConfig.set_flag", flag, "BuilderFlag")
            self._["flags"] = change(self._["flags"], 1 << int(flag))

        return write

    return {
        **{f"{name}=": setter(name, kind) for name, kind in _CONFIG_TYPES.items()},
        **_config_resources(world),
        "set_flag": flagged(lambda flags, bit: flags | bit),
        "clear_flag": flagged(lambda flags, bit: flags & ~bit),
        "get_flag": lambda self, flag: bool(self._["flags"] & 1 << int(flag)),
        "get_memory_pool_limit": lambda self, pool: self._["pools"].get(pool, 2**33),
        "get_timing_cache": lambda self: self._["cache"],
        "num_optimization_profiles": lambda self: len(self._["profiles"]),
    }


def _config_resources(world: World) -> Mapping[str, Method]:
    def set_pool(self: Any, pool: Any, pool_size: int) -> None:
        check_type(world, "IBuilderConfig.set_memory_pool_limit", pool, "MemoryPoolType")
        check_type(world, "IBuilderConfig.set_memory_pool_limit", pool_size, "int")
        self._["pools"][pool] = pool_size

    def create_cache(self: Any, serialized_timing_cache: Any) -> Any:
        content = bytes(serialized_timing_cache)
        fits = not content or content.startswith(world.full_version.encode() + b"\0")
        if "timing_cache" in world.fail or not fits:
            world.log(self._["owner"]._["logger"], "ERROR", "Timing cache cannot be deserialized")
            return None
        return make(world, "ITimingCache", content=content or world.full_version.encode() + b"\0")

    def set_cache(self: Any, cache: Any, ignore_mismatch: bool) -> bool:
        check_type(world, "IBuilderConfig.set_timing_cache", cache, "ITimingCache")
        self._["cache"] = cache
        return True

    def add_profile(self: Any, profile: Any) -> int:
        check_type(world, "IBuilderConfig.add_optimization_profile", profile, "IOptimizationProfile")
        self._["profiles"].append(profile)
        return len(self._["profiles"]) - 1

    return {
        "set_memory_pool_limit": set_pool,
        "create_timing_cache": create_cache,
        "set_timing_cache": set_cache,
        "add_optimization_profile": add_profile,
    }


def _timing_cache(world: World) -> Mapping[str, Method]:
    return {"serialize": lambda self: host_memory(world, self._["content"])}


def _profile() -> Mapping[str, Method]:
    def set_shape(self: Any, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002 - the names of the API
        if not all(low <= middle <= high for low, middle, high in zip(min, opt, max, strict=True)):
            raise RuntimeError("Shape provided for min is inconsistent with other shapes.")
        self._["shapes"][input] = tuple(opt)

    return {"set_shape": set_shape}


def _network(world: World) -> Mapping[str, Method]:
    def tensor(outputs: bool) -> Method:
        def get(self: Any, index: int) -> Any:
            engine = world.engine_for(self._["onnx"] or "")
            found = () if engine is None or self._["onnx"] is None else (engine.outputs if outputs else engine.inputs)
            item = found[index]
            return make(world, "ITensor", name=item.name, shape=item.shape, dtype=getattr(world.module.DataType, item.dtype))

        return get

    def count(of: Callable[[Any], tuple[Any, ...]]) -> Method:
        return lambda self: len(of(world.engine_for(self._["onnx"]))) if self._["onnx"] is not None else 0

    return {
        "num_inputs": count(lambda engine: engine.inputs),
        "num_outputs": count(lambda engine: engine.outputs),
        "num_layers": count(lambda engine: engine.layers),
        "get_input": tensor(outputs=False),
        "get_output": tensor(outputs=True),
        "name=": lambda self, value: self._.update(name=value),
    }


def _parser(world: World) -> Mapping[str, Method]:
    def construct(self: Any, network: Any, logger: Any) -> None:
        check_type(world, "OnnxParser.__init__", network, "INetworkDefinition")
        check_type(world, "OnnxParser.__init__", logger, "ILogger")
        self._.update(network=network, logger=logger, errors=[], flags=0)

    def refuse(self: Any, text: str, node: str) -> bool:
        self._["errors"].append(make(world, "ParserError", desc=text, node_name=node))
        world.log(self._["logger"], "ERROR", text)
        return False

    def parse(self: Any, model: Any, path: str = "") -> bool:
        data = bytes(memoryview(model))
        network = self._["network"]
        if world.major < 10 and not network._["flags"] & 1 << int(world.module.NetworkDefinitionCreationFlag.EXPLICIT_BATCH):
            return refuse(self, "This version of the ONNX parser only supports networks with an explicit batch dimension", "")
        if not data:
            # An empty message is a model, of an empty network; only the builder refuses that.
            return True
        digest = hashlib.sha256(data).hexdigest()
        unknown = world.engine_for(digest) is None
        if unknown or "parse" in world.fail:
            return refuse(self, *(("Failed to parse ONNX model from buffer", "") if unknown else world.parse_error))
        network._["onnx"] = digest
        return True

    return {
        "__init__": construct,
        "parse": parse,
        **_parser_state(world),
    }


def _parser_state(world: World) -> Mapping[str, Method]:
    def get_error(self: Any, index: int) -> Any:
        if not 0 <= index < len(self._["errors"]):
            raise MisuseError(f"there is no parser error {index}")
        return self._["errors"][index]

    def set_flag(self: Any, flag: Any) -> None:
        check_type(world, "OnnxParser.set_flag", flag, "OnnxParserFlag")
        self._["flags"] |= 1 << int(flag)

    return {
        "num_errors": lambda self: len(self._["errors"]),
        "get_error": get_error,
        "clear_errors": lambda self: self._["errors"].clear(),
        "set_flag": set_flag,
        "flags=": lambda self, value: self._.update(flags=value),
    }


def _parser_error() -> Mapping[str, Method]:
    return {
        "desc": lambda self: self._["desc"],
        "node": always(0),
        "node_name": lambda self: self._["node_name"],
        "node_operator": always("Conv"),
        "file": always("ModelImporter.cpp"),
        "func": always("parseNode"),
        "line": always(1),
        "code": always("UNSUPPORTED_NODE"),
    }


def numpy_type(trt_type: Any) -> type:
    """`tensorrt.nptype`."""
    if trt_type.name not in NUMPY_TYPES:
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
    found: type = NUMPY_TYPES[trt_type.name]
    return found


def volume(iterable: Any) -> int:
    """`tensorrt.volume`."""
    return int(np.prod([int(side) for side in iterable], dtype=np.int64))
