"""Signals while TensorRT parses or builds: they stop the build, and are handled when the library has returned."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from trt_device import Progress, install, members_of, spec_of

from edgekit.errors import TargetError
from edgekit.runtime.engines import tensorrt_build
from edgekit.runtime.engines.engine_cache import EngineCache


@pytest.fixture
def device(monkeypatch, tmp_path):
    return install(monkeypatch, tmp_path / "cache")


def build():
    return tensorrt_build.build(spec_of(), members_of(), EngineCache(), Progress())


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


class Stopped(BaseException):
    """What a handler raises, as the command line's does."""


class Signalling(str):
    """What a library gives to a callback; looking at it is when the signal comes, in the middle of the callback."""

    __slots__ = ("number",)

    def __eq__(self, other):
        os.kill(os.getpid(), self.number)
        return str.__eq__(self, other)

    def __str__(self):
        os.kill(os.getpid(), self.number)
        return str.__str__(self)

    __hash__ = str.__hash__


def signalling(number):
    """A text that sends a signal when it is looked at."""
    text = Signalling("Building Engine")
    text.number = number
    return text


@pytest.fixture
def handlers():
    """Handlers that raise, for every signal that stops a command; the process's own are put back."""

    def stop(number, _frame):
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


def in_log(builder, config, number):
    """The library tells something; what that raises is gone, as in bindings before version 10."""
    with contextlib.suppress(BaseException):
        builder._["logger"].log(sys.modules["tensorrt"].ILogger.Severity.ERROR, signalling(number))


def in_step(builder, config, number):
    """The library tells that a step is done; what that raises makes it stop, with no word of why."""
    with contextlib.suppress(BaseException):
        config._["progress_monitor"].step_complete(signalling(number), 0)


def interrupt(device, callback, number):
    """Sends a signal in a callback of the next builds; gives the plans that the library returned to."""
    real, through = device.trt.Builder.build_serialized_network, []

    def interrupted(builder, network, config):
        callback(builder, config, number)
        through.append(real(builder, network, config))
        return through[-1]

    device.trt.Builder.build_serialized_network = interrupted
    return through


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize(("callback", "version"), [(in_log, "8.6"), (in_log, "10.3"), (in_step, "10.3")])
def test_a_signal_waits_for_the_library(monkeypatch, tmp_path, handlers, callback, version, number):
    """A signal in a callback is handled when the library has returned, by the handler that was there, which is there again; nothing is kept."""
    device = install(monkeypatch, tmp_path / "cache", version)
    through = interrupt(device, callback, number)
    with pytest.raises(Stopped) as stopped:
        build()
    assert stopped.value.args == (number,)
    # Before version 10 a build cannot be stopped.
    assert (len(through), through == [None]) == (1, version == "10.3")
    assert [signal.getsignal(one) for one in SIGNALS] == [handlers] * 3
    assert not list(device.cache.glob("*.plan"))
    assert device.cuda.users == 0


def test_ctrl_c_is_a_keyboard_interrupt_after_the_build(device):
    """Where nobody has set a handler, Ctrl-C is Python's own."""
    before = signal.getsignal(signal.SIGINT)
    interrupt(device, in_step, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build()
    assert signal.getsignal(signal.SIGINT) is before is signal.default_int_handler


def test_a_signal_while_the_model_is_parsed_waits_too(device, handlers, monkeypatch):
    """The parser calls the log as the builder does."""
    real, through = device.trt.OnnxParser.parse, []

    def parse(parser, content):
        os.kill(os.getpid(), signal.SIGTERM)
        through.append(real(parser, content))
        return through[-1]

    monkeypatch.setattr(device.trt.OnnxParser, "parse", parse)
    with pytest.raises(Stopped):
        build()
    assert through == [True]


def test_what_is_ignored_stays_ignored(device, handlers):
    """Under nohup a terminal that goes away stops no build."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupt(device, in_step, signal.SIGHUP)
    assert not build().cached
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_handler_that_raises_nothing_is_called_and_the_build_told_as_stopped(device, handlers):
    """A program's own handler is called once, and the error names the signal."""
    came = []
    signal.signal(signal.SIGTERM, lambda number, _frame: came.append(number))
    interrupt(device, in_step, signal.SIGTERM)
    with pytest.raises(TargetError, match="SIGTERM stopped it"):
        build()
    assert came == [signal.SIGTERM]


def test_a_build_in_another_thread_touches_no_handler(device, handlers):
    """Only the main thread may set one; a build elsewhere works."""
    with ThreadPoolExecutor(1) as threads:
        assert not threads.submit(build).result().cached


@pytest.mark.parametrize("where", ["build", "parse"])
def test_a_signal_that_was_handled_stops_no_build_of_another_thread(device, handlers, monkeypatch, where):
    """A handler that raises ends the main thread's build; the next one, in another thread, is a build like any other."""
    with monkeypatch.context() as once:
        if where == "build":
            once.setattr(device.trt.Builder, "build_serialized_network", device.trt.Builder.build_serialized_network)
            interrupt(device, in_step, signal.SIGINT)
        else:
            once.setattr(device.trt.OnnxParser, "parse", lambda *_: os.kill(os.getpid(), signal.SIGINT) or True)
        with pytest.raises(Stopped):
            build()
    with ThreadPoolExecutor(1) as threads:
        assert not threads.submit(build).result().cached
