"""The log of a stream: what is in it, what never is, and how large it gets."""

from __future__ import annotations

import json
import logging
import threading
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from device_bundles import frame, write_device_bundle
from PIL import Image

import edgekit
from edgekit.errors import OutputError
from edgekit.imaging import frames as image_files
from edgekit.runtime import structured_log as module
from edgekit.runtime.endpoint import serve
from edgekit.runtime.feeds import EveryFeed
from edgekit.runtime.health import Health
from edgekit.runtime.sensors import Sensors
from edgekit.runtime.sources import Picture
from edgekit.runtime.stream import Stream, StreamOptions
from edgekit.runtime.structured_log import EVENTS, EventLog

NONE = Sensors(temperatures_c={}, clocks_mhz={}, unavailable={})
DIGEST = "0123456789abcdef" * 4


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stream.jsonl"


@pytest.fixture
def log(path):
    opened = EventLog.to_file(path)
    yield opened
    opened.close()


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def events(path):
    return [{name: value for name, value in line.items() if name != "time"} for line in lines(path)]


def test_a_run_is_told_event_by_event(path, log):
    """Begin, another engine, steps there and back, a restart, an error and the end with its counters, in their order."""
    health = Health(events=log.record, sensors=lambda: NONE)
    log.started(bundle_digest=DIGEST, engine="tensorrt")
    log.engine("tensorrt")
    log.engine("openvino")
    log.engine("openvino")
    for step in ("full", "no-maps", "no-maps", "full"):
        health.at_step(step)
    health.restarted("hang")
    health.failed("EngineLostError")
    health.captured(4)
    health.processed(latency_ms=1.0, age_ms=1.0)
    log.stopped(health.snapshot())
    *before, stop = events(path)
    assert before == [
        {"event": "start", "bundle": DIGEST, "edgekit": edgekit.__version__, "engine": "tensorrt"},
        {"event": "engine", "before": "tensorrt", "engine": "openvino"},
        {"event": "step", "before": "full", "step": "no-maps"},
        {"event": "step", "before": "no-maps", "step": "full"},
        {"event": "restart", "reason": "hang"},
        {"event": "error", "kind": "EngineLostError", "count": 1},
    ]
    assert {name: stop[name] for name in ("event", "captured", "processed", "failed", "restarts")} == {
        "event": "stop",
        "captured": 4,
        "processed": 1,
        "failed": 1,
        "restarts": 1,
    }
    assert set(stop) == {"event", *EVENTS["stop"]}


def test_times_are_utc(path, log):
    """In the form of ISO 8601, to the millisecond."""
    log.engine("openvino")
    text = lines(path)[0]["time"]
    assert text.endswith("Z")
    assert len(text) == len("2026-01-01T00:00:00.000Z")
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    assert abs(at - datetime.now(timezone.utc)) < timedelta(minutes=1)


SECRET = "DOE^JANE_1962-03-04_MRN0815"


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"/media/{SECRET}.png",
        "Jane Doe",
        "1962-03-04",
        "malignant 0.97",
        "x" * 64,
        f"{DIGEST} {SECRET}",
        "0.1.0 Jane",
        '"}\n{"a":"',
    ],
)
def test_no_text_gets_in(path, log, text):
    """Wherever it is given, it is another kind; unknown events and facts are dropped, and a line stays a line."""
    log.started(bundle_digest=text, engine=text)
    log.engine(f"{text} again")
    log.record("error", {"kind": text, "file": text})
    log.record("restart", {"reason": text, text: text})
    log.record("step", {"before": text, "step": text})
    log.record(text, {"file": text})
    assert text not in path.read_text("utf-8")
    found = events(path)
    assert [line["event"] for line in found] == ["start", "engine", "error", "restart", "step", "other"]
    assert found[2:] == [
        {"event": "error", "kind": "other", "count": 1},
        {"event": "restart", "reason": "other"},
        {"event": "step", "before": "other", "step": "other"},
        {"event": "other"},
    ]


def test_a_whole_run_leaves_no_trace_of_whom_it_was_about(tmp_path, path, log):
    """Files named after a patient are played, good, damaged and refused ones: neither the log nor any page of health has the name, the folder, a label or a pixel's digest."""
    folder = tmp_path / SECRET
    folder.mkdir()
    health = Health(events=log.record)

    def pictures():
        for index in range(4):
            file = folder / f"{SECRET}-{index}.png"
            Image.fromarray(frame(index)).save(file)
            if index == 2:
                file.write_bytes(b"damaged")
            try:
                for found in image_files.read(file):
                    yield Picture(input=str(file), index=index, pixels=found.pixels)
            except edgekit.EdgekitError as error:
                yield Picture(input=str(file), index=index, error=error)
        yield Picture(input=str(folder / SECRET), index=4, pixels=np.zeros((2, 2, 4), np.uint8))

    with edgekit.load(write_device_bundle(tmp_path / "x.edgekit")) as classifier, serve(0, health) as endpoint:
        log.started(bundle_digest=classifier.bundle_digest, engine=classifier.engine_name)
        results = list(Stream(classifier.clip(), health, StreamOptions()).play(EveryFeed(pictures(), health)))
        log.stopped(health.snapshot())
        pages = [
            urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}{page}", timeout=10).read().decode()
            for page in ("/health", "/metrics", "/readyz")
        ]
    assert [result.error is None for result in results] == [True, True, False, True, False]
    assert SECRET in results[2].error.message
    told = "\n".join([path.read_text("utf-8"), *pages])
    for part in (SECRET, "DOE", "JANE", "0815", str(tmp_path), *classifier.manifest.output.labels):
        assert part not in told, part
    assert events(path)[1] == {"event": "error", "kind": "DataError", "count": 1}
    assert events(path)[-1]["captured"] == 5


def test_an_error_that_repeats_is_a_line_now_and_then(path):
    """Sixty failures a second are one line a kind in ten seconds, and no failure is missing from the sum."""
    clock = Clock()
    log = EventLog(module._File(path, maxBytes=1 << 20, backupCount=1, encoding="utf-8"), clock=clock)
    for _ in range(600):
        log.record("error", {"kind": "DataError"})
        clock.now += 1 / 60 + 1e-9
    log.record("error", {"kind": "TargetError"})
    for _ in range(5):
        log.record("error", {"kind": "DataError"})
    log.stopped(Health(sensors=lambda: NONE).snapshot())
    log.close()
    found = [(line["kind"], line["count"]) for line in events(path) if line["event"] == "error"]
    assert found == [("DataError", 1), ("TargetError", 1), ("DataError", 600), ("DataError", 4)]


def test_the_log_stays_small(path):
    """It begins a new file where one is full, keeps a few, and each line is whole."""
    log = EventLog.to_file(path, max_bytes=2000, kept=2)
    for number in range(200):
        log.engine(f"engine-{number}")
    log.close()
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == [path.name, f"{path.name}.1", f"{path.name}.2"]
    assert all(0 < file.stat().st_size <= 2000 for file in files)
    assert events(path)[-1]["engine"] == "engine-199"
    assert all(line["event"] == "engine" for file in files for line in lines(file))


def test_a_log_goes_on_where_it_ended(path):
    """What an earlier run wrote is kept."""
    for engine in ("one", "two"):
        log = EventLog.to_file(path)
        log.engine(engine)
        log.close()
        log.close()
    assert [line["engine"] for line in events(path)] == ["one", "two"]


def test_a_log_that_cannot_be_opened_is_one_clear_error(tmp_path):
    """Before a stream begins."""
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        EventLog.to_file(tmp_path / "none" / "stream.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_stops_nothing_and_is_told(capfd):
    """The lines that were lost are counted, with the reason, and no traceback is printed."""
    handler = module._File("/dev/full", maxBytes=0, encoding="utf-8")
    log = EventLog(handler)
    log.engine("openvino")
    log.engine("onnxruntime")
    assert (log.lost, log.problem) == (2, "No space left on device")
    handler.stream = None  # what is still to be written cannot be, at closing either
    log.close()
    assert capfd.readouterr() == ("", "")


def test_other_logs_are_left_alone(path, log, caplog):
    """Neither do its events reach the program's own log, nor do the program's messages reach this one."""
    with caplog.at_level(logging.DEBUG):
        log.engine("openvino")
        logging.getLogger("edgekit.events").error("a file of %s", SECRET)
        logging.getLogger().error("a file of %s", SECRET)
    assert len(caplog.records) == 2
    assert len(lines(path)) == 1


def test_threads_write_whole_lines(path, log):
    """Four at once."""

    def work(name):
        for number in range(100):
            log.record("restart", {"reason": f"{name}-{number}"})

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line["reason"] for line in events(path)) == sorted(f"{name}-{number}" for name in "abcd" for number in range(100))


def test_a_file_has_one_writer(tmp_path):
    """Two runs would move it away from each other; the second is refused, until the first one has ended. That holds after it was moved, too."""
    path = tmp_path / "events.jsonl"
    first = EventLog.to_file(path, max_bytes=200, kept=1)
    for _ in range(2):
        with pytest.raises(OutputError, match="another run is writing it"):
            EventLog.to_file(path)
        for step in ("full", "no-maps") * 5:
            first.record("step", {"before": step, "step": step})
        assert path.with_name("events.jsonl.1").exists()
    assert first.lost == 0
    first.close()
    EventLog.to_file(path).close()
