"""What two processes say to each other: whole messages come through as they are, and whatever else is sent is refused in bounded time."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import struct
import sys
import threading
import time

import numpy as np
import pytest
from bundle_builders import tiny_manifest

from edgekit.errors import BundleError, EdgekitError, TargetError
from edgekit.runtime import wire
from edgekit.runtime.engines.base import ModelRefusedError
from edgekit.runtime.prediction import Prediction
from edgekit.runtime.supervised_answer import Asked, prediction_of
from edgekit.runtime.wire import Answer, BrokenChannelError, Channel, Failure, FrameMemory, HungUpError, Ready, Reply, Request

ANSWER = Answer(
    labels=("malignant",),
    probabilities={"benign": 0.1, "malignant": 0.9},
    logits={"benign": -1.1000000000000001, "malignant": 5e-324},
    accepted=True,
    assessable=True,
    reason="",
    engine="openvino",
    engine_notes=("tensorrt: «not» installed\n",),
    stages_ms={"infer": 1.25},
    latency_ms=2.5,
    maps_shape=(2, 1, 1),
)
REPLY = Reply(number=7, answer=ANSWER)
MAPS = np.array([-0.1, np.finfo(np.float32).tiny], np.float32)


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    yield Channel(ours), theirs
    ours.close()
    theirs.close()


def soon(seconds=0.3):
    return time.monotonic() + seconds


@pytest.mark.parametrize(
    "message",
    [
        REPLY,
        Reply(number=0, ready=Ready(bundle_digest="ab" * 32, engine="openvino", engine_notes=(), at_ns=2**62)),
        Reply(number=3, failure=Failure.of(BundleError("what", hint="do"))),
        Request(number=2**40, shape=(480, 640, 3), explain=False, gate=True, clip=4, anew=True, ended=(1, 2)),
        Request(number=1, shape=(1, 1), explain=True, gate=False, clip=None, anew=False, ended=()),
    ],
    ids=["answer", "ready", "failure", "request", "plain-request"],
)
def test_a_message_comes_through_as_it_is(ends, message):
    """Every field, every digit and every map, and the channel is free for the next one."""
    channel, theirs = ends
    for _ in range(2):
        Channel(theirs).send(message, MAPS)
        found, numbers = channel.receive(type(message), deadline_s=soon())
        assert found == message
        assert numbers.dtype == np.float32
        assert numbers.tobytes() == MAPS.tobytes()


def test_maps_that_are_no_float32_in_c_order_are_sent_as_such(ends):
    """Rows and columns do not change places, whatever the array's layout in memory."""
    channel, theirs = ends
    maps = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    Channel(theirs).send(REPLY, maps)
    assert channel.receive(Reply, deadline_s=soon())[1].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_large_message_comes_through_in_pieces(ends):
    """More than a socket holds at once."""
    channel, theirs = ends
    maps = np.random.default_rng(0).random(1 << 20, dtype=np.float32)
    sender = threading.Thread(target=Channel(theirs).send, args=(REPLY, maps))
    sender.start()
    assert np.array_equal(channel.receive(Reply, deadline_s=soon(30))[1], maps)
    sender.join()


def message(table, tail=b"", mark=b"ekw1", claimed=None):
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<4sIQ", mark, len(text), len(tail) if claimed is None else claimed) + text + tail


WHOLE = dataclasses.asdict(REPLY)
NONSENSE = {
    "another mark": message(WHOLE, mark=b"HTTP"),
    "a pickle": message(b"\x80\x04cos\nsystem\n"),
    "no JSON": message(b"{"),
    "no UTF-8": message(b'"\xff"'),
    "a list": message([]),
    "an unknown key": message({**WHOLE, "more": 1}),
    "a missing key": message({"ready": None}),
    "a wrong type": message({**WHOLE, "number": "7"}),
    "NaN": message(b'{"number": NaN}'),
    "infinite": message(json.dumps(WHOLE).replace("2.5", "1e999").encode()),
    "two in one": message({**WHOLE, "failure": {"kinds": [], "message": "", "hint": ""}}),
    "nothing": message({"number": 1}),
    "nested": message(b"[" * 100_000),
    "a table of gigabytes": struct.pack("<4sIQ", b"ekw1", 2**32 - 1, 0),
    "numbers of exabytes": struct.pack("<4sIQ", b"ekw1", 2, 2**62),
    "half a number": message(WHOLE, tail=b"abc"),
}


@pytest.mark.parametrize("sent", NONSENSE.values(), ids=NONSENSE)
def test_what_is_no_message_is_refused(ends, sent):
    """It is no answer, no traceback of another kind, and no memory is spent on what it claims to be."""
    channel, theirs = ends
    sender = threading.Thread(target=theirs.sendall, args=(sent,))
    sender.start()
    with pytest.raises(BrokenChannelError) as caught:
        channel.receive(Reply, deadline_s=soon(10))
    assert not isinstance(caught.value, HungUpError)
    sender.join()


@pytest.mark.parametrize("share", [0, 3, 16, 40, -1])
def test_a_message_that_stops_is_hung_up_or_too_late(ends, share):
    """Wherever it stops: at once where the other side is gone, at the deadline where it is still there."""
    channel, theirs = ends
    theirs.sendall(message(WHOLE, tail=bytes(8))[:share])
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        channel.receive(Reply, deadline_s=soon(0.1))
    assert 0.09 < time.monotonic() - start < 2
    theirs.close()
    with pytest.raises(HungUpError):
        channel.receive(Reply, deadline_s=soon(10))


def test_a_drop_a_time_does_not_stretch_the_deadline(ends):
    """The deadline is the message's, not that of each piece."""
    channel, theirs = ends
    stop = threading.Event()

    def drip():
        for byte in message(WHOLE):
            if stop.wait(0.02):
                return
            theirs.sendall(bytes([byte]))

    thread = threading.Thread(target=drip)
    thread.start()
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        channel.receive(Reply, deadline_s=soon(0.3))
    assert time.monotonic() - start < 2
    stop.set()
    thread.join()


def test_nobody_listens(ends):
    """A message that is not taken is too late, and one to nobody is hung up on."""
    channel, theirs = ends
    with pytest.raises(TimeoutError):
        channel.send(REPLY, np.zeros(1 << 22, np.float32), deadline_s=soon(0.1))
    theirs.close()
    with pytest.raises(HungUpError):
        channel.send(REPLY, deadline_s=soon())


def test_an_error_is_of_the_nearest_known_kind():
    """A kind of the engines is known, one of somebody else's becomes its base, and a name that is no error's is none."""

    class OtherError(ModelRefusedError):
        pass

    assert type(Failure.of(OtherError("x", hint="y")).error()) is ModelRefusedError
    assert type(Failure(kinds=("SystemExit", "nearest", "TargetError"), message="", hint="").error()) is TargetError
    assert type(Failure(kinds=(), message="", hint="").error()) is EdgekitError


def test_what_is_no_number_is_not_sent(ends):
    """JSON has no NaN, so the sender fails and nothing half is on its way."""
    channel, theirs = ends
    with pytest.raises(ValueError, match="not JSON compliant"):
        Channel(theirs).send(Reply(number=1, answer=dataclasses.replace(ANSWER, latency_ms=float("nan"))))
    with pytest.raises(TimeoutError):
        channel.receive(Reply, deadline_s=soon(0.05))


def test_an_answer_is_all_of_a_prediction():
    """A field that a prediction gets is one that an answer has: nothing is lost on the way."""
    own = {"label", "_maps", "_frame", "_manifest"}
    sent = {"labels", "maps_shape"}
    assert {field.name for field in dataclasses.fields(Answer)} - sent == {field.name for field in dataclasses.fields(Prediction)} - own


ASKED = Asked(frame=np.zeros((2, 2), np.uint8), gate=True, note="", started_ns=time.perf_counter_ns())
NOT_ASSESSABLE = {"assessable": False, "labels": None, "probabilities": {}, "logits": {}, "reason": "it is flat", "maps_shape": None}


def test_an_answer_of_the_model_is_a_prediction():
    """The tests below change one thing of these."""
    found = prediction_of(ANSWER, MAPS, ASKED, tiny_manifest())
    assert (found.label, found.probabilities, found.logits) == ("malignant", ANSWER.probabilities, ANSWER.logits)
    assert found.cam_for("malignant").tolist() == [[MAPS[1]]]
    assert prediction_of(dataclasses.replace(ANSWER, **NOT_ASSESSABLE), MAPS[:0], ASKED, tiny_manifest()).label is None
    told = dataclasses.replace(ANSWER, assessable=False, reason="it is flat")
    assert prediction_of(told, MAPS, dataclasses.replace(ASKED, gate=False), tiny_manifest()).label == "malignant"
    noted = prediction_of(ANSWER, MAPS, dataclasses.replace(ASKED, note="fresh"), tiny_manifest())
    assert noted.engine_notes == (*ANSWER.engine_notes, "fresh")


WRONG = {
    "acceptance": ({"accepted": False}, "about the acceptance"),
    "engine": ({"engine": "onnxruntime"}, "none of the bundle's"),
    "label of another model": ({"labels": ("cat",)}, "not the model's"),
    "two labels": ({"labels": ("benign", "malignant")}, "not one label"),
    "a label twice": ({"labels": ("benign", "benign")}, "not the model's"),
    "no label": ({"labels": ()}, "not one label"),
    "none although assessable": ({"labels": None}, "not the model's"),
    "labels in another order": ({"probabilities": {"malignant": 0.9, "benign": 0.1}}, "not the model's"),
    "a label too few": ({"logits": {"benign": 1.0}}, "not the model's"),
    "probability above 1": ({"probabilities": {"benign": 0.1, "malignant": 1.1}}, "between 0 and 1"),
    "maps of another size": ({"maps_shape": (1, 2, 1)}, "not of the model's size"),
    "maps too few": ({"maps_shape": (2, 2, 1)}, "the size that it says"),
    "maps that are not said": ({"maps_shape": None}, "the size that it says"),
    "an answer to what is not assessable": ({"assessable": False, "reason": "it is flat"}, "has no answer"),
    "no reason": ({**NOT_ASSESSABLE, "reason": ""}, "has a reason"),
}


@pytest.mark.parametrize(("change", "says"), WRONG.values(), ids=WRONG)
def test_what_is_no_answer_of_the_model_is_refused(change, says):
    """A wrong label on a screen is worse than none."""
    numbers = MAPS[:0] if change.get("maps_shape", 0) is None and not change.get("assessable", True) else MAPS
    with pytest.raises(ValueError, match=says):
        prediction_of(dataclasses.replace(ANSWER, **change), numbers, ASKED, tiny_manifest())


def test_maps_that_a_model_does_not_have_or_that_are_no_numbers_are_refused():
    """They are not drawn."""
    with pytest.raises(ValueError, match="not of the model's size"):
        prediction_of(ANSWER, MAPS, ASKED, tiny_manifest(cam=None, cam_reason="none"))
    with pytest.raises(ValueError, match="no numbers"):
        prediction_of(ANSWER, np.array([0, np.nan], np.float32), ASKED, tiny_manifest())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory without a name is Linux's")
class TestFrameMemory:
    def test_a_frame_is_seen_on_the_other_side(self):
        """Grey and colour, whatever was there before and however the frame lies in memory; the reader cannot write."""
        ours = FrameMemory()
        theirs = FrameMemory(os.dup(ours.descriptor))
        rng = np.random.default_rng(0)
        for pixels in (rng.integers(0, 256, (9, 7, 3), np.uint8), rng.integers(0, 256, (8, 6), np.uint8)[::-1, ::2]):
            ours.write(pixels)
            seen = theirs.read(pixels.shape)
            assert np.array_equal(seen, pixels)
            with pytest.raises(ValueError, match="read-only"):
                seen[0] = 1
        del seen
        theirs.close()
        ours.close()
        ours.close()

    def test_it_cannot_be_made_shorter(self):
        """A reader whose memory is cut off is killed by the system."""
        ours = FrameMemory()
        with pytest.raises(PermissionError):
            os.ftruncate(ours.descriptor, 0)
        ours.close()

    @pytest.mark.parametrize("shape", [(), (5,), (0, 5), (-1, -1), (wire.MAX_FRAME_PIXELS, 4), (2, 2, 2, 2)])
    def test_a_shape_that_is_no_frames_is_refused(self, shape):
        """Nothing outside the memory is read."""
        ours = FrameMemory()
        with pytest.raises(BrokenChannelError):
            ours.read(shape)
        ours.close()
