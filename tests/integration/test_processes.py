"""One compile in two processes, as torchrun starts them: they train together, and one of them writes what a single process writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from compile_builders import write_project

from edgekit.bundle.reader import open_bundle

SETTINGS = ("compress.distill={epochs=1,batch=8}", "accept.enforce=false")


@pytest.mark.slow
def test_two_processes_compile_one_bundle(tmp_path):
    """Both end well, one document is printed, and the bundle opens."""
    project = write_project(tmp_path / "project")
    out = tmp_path / "out.edgekit"
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    launcher = ["torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "edgekit"]
    compiled = ["compile", str(project.recipe), "--workdir", str(tmp_path / "work"), "--out", str(out), "--json", *settings]
    ran = subprocess.run(
        [sys.executable, "-m", *launcher, *compiled],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=540,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    document = json.loads(ran.stdout)
    assert document["bundles"] == [str(out)]
    assert document["training"][0]["stage"] == "distill"
    assert open_bundle(out).manifest.name == document["name"]


def test_a_search_is_refused_in_several_processes(tmp_path):
    """Before any work: its trials are shared by a storage, and not by a launcher."""
    project = write_project(tmp_path / "project")
    settings = ("compress.prune={latency_target=0.5}", "compress.distill={}", "compress.search=true")
    given = [part for setting in settings for part in ("--set", setting)]
    ran = subprocess.run(
        [sys.executable, "-m", "edgekit", "compile", str(project.recipe), "--workdir", str(tmp_path / "work"), *given],
        capture_output=True,
        text=True,
        env={**os.environ, "WORLD_SIZE": "2", "RANK": "0"},
        timeout=120,
        check=False,
    )
    assert ran.returncode == 1
    assert "error: a search runs in one process, not in 2" in ran.stderr
    assert not (tmp_path / "work").exists()
