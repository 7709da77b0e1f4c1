"""The fake `tensorrt` fails where the real one would, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from trt_fake import (
    FakeEngine,
    FakeTensor,
    MisuseError,
    fake_cuda,
    fake_tensorrt,
    versions,
    world_of,
)

ONNX = b"an ONNX file"
FRAME = np.arange(12, dtype=np.uint8).reshape(1, 2, 6, 1)


def _engine(shape=(1, 2, 6, 1)):
    def compute(tensors):
        return {"logits": tensors["frame"].reshape(1, -1)[:, :2].astype(np.float32) * 2}

    return FakeEngine(
        inputs=(FakeTensor(name="frame", dtype="UINT8", shape=shape),),
        outputs=(FakeTensor(name="logits", dtype="FLOAT", shape=(1, 2)),),
        compute=compute,
    )


def _module(version="10.3", **options):
    return fake_tensorrt(version, **{"engine": _engine(), **options})


def _network_flags(trt):
    names = trt.NetworkDefinitionCreationFlag.__members__
    return 1 << int(names["STRONGLY_TYPED"] if "STRONGLY_TYPED" in names else names["EXPLICIT_BATCH"])


def _build(trt, data=ONNX, prepare=lambda _trt, _config: None):
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(data):
        return parser
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 2**28)
    prepare(trt, config)
    return builder.build_serialized_network(network, config)


def _context(trt, plan=None):
    runtime = trt.Runtime(trt.Logger())
    return runtime.deserialize_cuda_engine(_build(trt) if plan is None else plan).create_execution_context()


@pytest.fixture
def gpu():
    cuda = fake_cuda()
    with cuda.active():
        yield cuda


@pytest.mark.parametrize("version", versions())
def test_one_path_runs_on_every_version(version, gpu):
    """Named inputs and outputs and `execute_async_v3` build, open and compute on every version that has a manifest."""
    context = _context(_module(version, cuda=gpu))
    stream = gpu.stream()
    taken, given = gpu.host_alloc(FRAME.nbytes, mapped=True), gpu.host_alloc(8, mapped=True)
    taken.array[:] = FRAME.reshape(-1)
    assert context.set_tensor_address("frame", taken.device_pointer)
    assert context.set_tensor_address("logits", given.device_pointer)
    assert context.execute_async_v3(stream.pointer)
    assert given.array.view(np.float32).tolist() == [0, 0], "before the stream is waited for nothing has been computed"
    gpu.synchronize(stream)
    assert given.array.view(np.float32).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("version", "use"),
    [
        ("10.3", lambda trt: trt.Builder(trt.Logger()).build_engine),
        ("10.3", lambda trt: trt.Builder(trt.Logger()).create_builder_config().max_workspace_size),
        ("8.5", lambda trt: trt.BuilderFlag.VERSION_COMPATIBLE),
        ("8.6", lambda trt: trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED),
        ("8.6", lambda trt: trt.IProgressMonitor),
        ("11.4", lambda trt: trt.BuilderFlag.FP16),
        ("11.4", lambda trt: trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH),
        ("11.4", lambda trt: _context(trt).engine.device_memory_size),
        ("10.3", lambda trt: trt.Builder(trt.Logger()).create_builder_config().no_such_name),
        ("10.3", lambda trt: trt.fake),
        ("10.3", lambda trt: _build(trt).hex),
    ],
)
def test_what_a_version_lacks_is_an_attribute_error(version, use):
    """A name that the manifest of the version does not list is not there."""
    with pytest.raises(AttributeError):
        use(_module(version))


def test_an_unknown_property_cannot_be_set():
    """Writing a property that the version lacks fails and does not make an attribute; a read-only one cannot be written."""
    trt = _module("8.5")
    config = trt.Builder(trt.Logger()).create_builder_config()
    with pytest.raises(AttributeError):
        config.builder_optimization_level = 3
    with pytest.raises(AttributeError):
        config.num_optimization_profiles = 3


@pytest.mark.parametrize(
    "use",
    [
        lambda trt: setattr(trt.Builder(trt.Logger()).create_builder_config(), "builder_optimization_level", "3"),
        lambda trt: trt.Builder(trt.Logger()).create_builder_config().set_flag(0),
        lambda trt: trt.Builder(trt.Logger()).create_network(flag=1),
        lambda trt: trt.Builder(),
        lambda trt: trt.Builder("logger"),
        lambda trt: trt.ICudaEngine(),
        lambda trt: len(_build(trt)),
        lambda trt: _context(trt).execute_async_v3(object()),
    ],
)
def test_wrong_arguments_are_a_type_error(use):
    """Arguments of a wrong name, number or type are refused, as by the bindings."""
    with pytest.raises(TypeError):
        use(_module())


@pytest.mark.parametrize("arguments", [((), {"flag": 1}), ((0, 0), {}), ((0,), {"flags": 0})])
def test_a_wrong_call_is_not_recorded(arguments):
    """A call with an unknown name, one argument too many or one twice does not happen."""
    trt = _module()
    builder = trt.Builder(trt.Logger())
    with pytest.raises(TypeError, match="incompatible"):
        builder.create_network(*arguments[0], **arguments[1])
    assert world_of(trt).names() == ["Logger", "Builder"]


def test_a_listed_name_without_a_model_is_told():
    """What the API has and the fake does not model raises, and never answers."""
    trt = _module()
    builder = trt.Builder(trt.Logger())
    with pytest.raises(NotImplementedError, match=r"Builder\.is_network_supported"):
        builder.is_network_supported(None, None)


def test_calls_are_recorded_in_order():
    """Every call and every setting is put down with its arguments by name."""
    trt = _module()
    _build(trt, prepare=lambda _, config: setattr(config, "max_aux_streams", 0))
    assert world_of(trt).names() == [
        "Logger",
        "Builder",
        "Builder.create_network",
        "OnnxParser",
        "OnnxParser.parse",
        "Builder.create_builder_config",
        "IBuilderConfig.set_memory_pool_limit",
        "IBuilderConfig.max_aux_streams=",
        "Builder.build_serialized_network",
    ]
    limit = next(call for call in world_of(trt).calls if call.name.endswith("pool_limit"))
    assert limit.arguments == {"pool": trt.MemoryPoolType.WORKSPACE, "pool_size": 2**28}


def test_a_plan_depends_on_model_version_and_settings():
    """The same build gives the same bytes; another model, setting or version gives others."""
    one = bytes(_build(_module()))
    assert bytes(_build(_module())) == one
    others = [
        _build(_module(), b"another"),
        _build(_module("10.16")),
        _build(_module(), prepare=lambda _, config: setattr(config, "max_aux_streams", 0)),
    ]
    assert len({one, *map(bytes, others)}) == 4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda plan: plan[:-1], "Corrupted"),
        (lambda plan: plan[:-1] + b"?", "Corrupted"),
        (lambda _: b"", "magic"),
        (lambda plan: b"{}" + plan, "magic"),
        (lambda _: bytes(_build(_module("10.16"))), "not compatible"),
    ],
)
def test_a_plan_that_was_not_made_here_gives_no_engine(damage, message):
    """A cut, changed or foreign plan is answered with None and an error in the log."""
    trt = _module()
    assert trt.Runtime(trt.Logger()).deserialize_cuda_engine(damage(bytes(_build(trt)))) is None
    severity, text = world_of(trt).messages[-1]
    assert severity == "ERROR"
    assert message.lower() in text.lower()


def test_a_parser_error_names_its_node():
    """A refused graph is told by the parser's errors, with the node where the version tells it."""
    parser = _build(_module(fail={"parse"}, parse_error=("Non-zero zero point", "/conv/Q")))
    assert parser.num_errors == 1
    assert parser.get_error(0).desc() == "Non-zero zero point"
    assert parser.get_error(0).node_name() == "/conv/Q"
    with pytest.raises(AttributeError):
        _build(_module("8.6", fail={"parse"})).get_error(0).node_name()


@pytest.mark.parametrize("fail", ["build", "deserialize", "context"])
def test_a_failure_answers_none(fail):
    """What was told to fail answers with None, as TensorRT does."""
    trt = _module(fail={fail})
    plan = _build(trt)
    if fail == "build":
        assert plan is None
        return
    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(plan)
    assert (engine if fail == "deserialize" else engine.create_execution_context()) is None


def test_a_strongly_typed_network_refuses_precision_flags():
    """FP16 and INT8 as flags are refused where the types are in the graph, and taken where the builder chooses them."""

    def prepare(trt, config):
        config.set_flag(trt.BuilderFlag.INT8)

    assert _build(_module("10.3"), prepare=prepare) is None
    assert _build(_module("8.6"), prepare=prepare) is not None


def test_tensorrt_8_parses_only_with_an_explicit_batch():
    """Before TensorRT 10 a network without the flag EXPLICIT_BATCH takes no ONNX file."""
    trt = _module("8.6")
    logger = trt.Logger()
    assert not trt.OnnxParser(trt.Builder(logger).create_network(), logger).parse(ONNX)


def test_a_table_of_engines_is_by_the_bytes():
    """Each ONNX file has its own engine; a file that is not in the table cannot be parsed."""
    trt = _module(engine={b"one": _engine(), b"two": _engine(shape=(1, 1, 2, 1))})
    sides = [_context(trt, _build(trt, data)).engine.get_tensor_shape("frame") for data in (b"one", b"two")]
    assert [tuple(shape) for shape in sides] == [(1, 2, 6, 1), (1, 1, 2, 1)]
    assert _build(trt, b"three").num_errors == 1


def test_a_progress_monitor_sees_the_build_and_can_end_it():
    """The monitor is called phase by phase; answering False to a step ends the build without a plan."""
    trt = _module()
    seen = []

    class Monitor(trt.IProgressMonitor):
        def __init__(self, answer):
            trt.IProgressMonitor.__init__(self)
            self.answer = answer

        def phase_start(self, phase_name, _parent_phase, _num_steps):
            seen.append(phase_name)

        def phase_finish(self, _phase_name):
            seen.append("end")

        def step_complete(self, _phase_name, _step):
            return self.answer

    plans = [
        _build(trt, prepare=lambda _, config, answer=answer: setattr(config, "progress_monitor", Monitor(answer)))
        for answer in (True, False)
    ]
    assert plans[0] is not None
    assert plans[1] is None
    assert seen == ["Building Engine", "end"] * 2


def test_a_monitor_without_its_constructor_is_refused():
    """A subclass that does not call the constructor of the base is refused, as by the bindings."""
    trt = _module()

    class Monitor(trt.IProgressMonitor):
        def __init__(self):
            pass

    with pytest.raises(TypeError, match="must be called"):
        _build(trt, prepare=lambda _, config: setattr(config, "progress_monitor", Monitor()))


def test_a_logger_of_ones_own_gets_the_errors():
    """What TensorRT logs goes through the `log` of the logger that was passed."""
    trt = _module(fail={"build"})
    lines = []

    class Lines(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)

        def log(self, severity, msg):
            lines.append((severity, msg))

    logger = Lines()
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    trt.OnnxParser(network, logger).parse(ONNX)
    builder.build_serialized_network(network, builder.create_builder_config())
    assert lines[-1][0] == trt.ILogger.Severity.ERROR


def test_a_timing_cache_is_of_its_version():
    """A cache comes back as it was serialized; one of another version is refused."""
    trt, other = _module("10.3"), _module("10.16")
    config = trt.Builder(trt.Logger()).create_builder_config()
    cache = config.create_timing_cache(b"")
    assert config.set_timing_cache(cache, ignore_mismatch=False)
    content = bytes(cache.serialize())
    assert bytes(config.create_timing_cache(content).serialize()) == content
    assert other.Builder(other.Logger()).create_builder_config().create_timing_cache(content) is None


def test_an_address_that_is_not_set_is_refused(gpu):
    """Execution answers False while an output has no address."""
    trt = _module(cuda=gpu)
    context = _context(trt)
    context.set_tensor_address("frame", gpu.device_alloc(FRAME.nbytes).pointer)
    assert context.execute_async_v3(gpu.stream().pointer) is False
    assert "logits" in world_of(trt).messages[-1][1]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("too-small", "where 4 are allocated"),
        ("freed", "has no memory"),
        ("host-address", "has no memory"),
        ("misaligned", "multiple of 256"),
        ("no-stream", "handle of no stream"),
    ],
)
def test_undefined_behaviour_is_told(gpu, fault, message):
    """What a GPU would answer with a crash or with garbage fails the test that does it."""
    context = _context(_module(cuda=gpu))
    stream, taken = gpu.stream(), gpu.host_alloc(512, mapped=True)
    given = gpu.device_alloc(4 if fault == "too-small" else 64)
    addresses = {"host-address": taken.array.ctypes.data & ~255, "misaligned": taken.device_pointer + 1}
    context.set_tensor_address("frame", addresses.get(fault, taken.device_pointer))
    context.set_tensor_address("logits", given.pointer)
    if fault == "freed":
        gpu.free(given)

    def run():
        context.execute_async_v3(7 if fault == "no-stream" else stream.pointer)
        gpu.synchronize(stream)

    with pytest.raises(MisuseError, match=message):
        run()


def test_an_open_shape_needs_a_profile_and_a_shape(gpu):
    """An input with an open side is built only with a profile and runs only with a shape, which is set before the address."""
    trt = _module(engine=_engine(shape=(1, -1, 6, 1)), cuda=gpu)
    assert _build(trt) is None

    def prepare(trt, config):
        profile = trt.Builder(trt.Logger()).create_optimization_profile()
        profile.set_shape("frame", (1, 1, 6, 1), (1, 2, 6, 1), (1, 4, 6, 1))
        config.add_optimization_profile(profile)

    context = _context(trt, _build(trt, prepare=prepare))
    context.set_tensor_address("frame", gpu.device_alloc(FRAME.nbytes).pointer)
    context.set_tensor_address("logits", gpu.device_alloc(8).pointer)
    assert context.execute_async_v3(gpu.stream().pointer) is False
    with pytest.raises(MisuseError, match="after its address"):
        context.set_input_shape("frame", (1, 2, 6, 1))


def test_a_graph_runs_on_what_lies_at_its_addresses_when_launched(gpu):
    """A captured execution computes nothing at capture and the new frame at each launch; it needs one execution before."""
    context = _context(_module(cuda=gpu))
    stream, taken, given = gpu.stream(), gpu.host_alloc(FRAME.nbytes, mapped=True), gpu.host_alloc(8, mapped=True)
    context.set_tensor_address("frame", taken.device_pointer)
    context.set_tensor_address("logits", given.device_pointer)
    gpu.begin_capture(stream)
    assert context.execute_async_v3(stream.pointer) is False, "the first execution cannot be captured"
    gpu.free(gpu.end_capture(stream))
    context.execute_async_v3(stream.pointer)
    gpu.synchronize(stream)
    gpu.begin_capture(stream)
    assert context.execute_async_v3(stream.pointer)
    graph = gpu.end_capture(stream)
    for frame in (FRAME, FRAME + 1):
        taken.array[:] = frame.reshape(-1)
        gpu.launch(graph, stream)
        gpu.synchronize(stream)
        assert given.array.view(np.float32).tolist() == (frame.reshape(-1)[:2] * 2.0).tolist()
