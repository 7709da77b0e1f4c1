"""One training in two processes, as `torchrun` and `accelerate launch` start them: both end alike, and as one process would."""
# ruff: noqa: TID253 - the tests of what uses torch use torch

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_builders import reference_training

SUPPORT = Path(__file__).resolve().parents[2] / "support"
LAUNCHERS = {
    "torchrun": ("-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port={port}"),
    # Its --cpu starts one process, whatever the number; where there is no GPU, --multi_gpu starts two that train on the CPU.
    "accelerate": (
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes=2",
        "--num_machines=1",
        "--main_process_port={port}",
    ),
}
PROGRAM = """\
import json, sys
from pathlib import Path
sys.path.insert(0, {support!r})
import os
from accelerate import PartialState
from safetensors.torch import save_file
from training_builders import reference_training

rank, folder = int(os.environ["RANK"]), Path({folder!r})
student, history, listener = reference_training(folder, stop_at={stop_at!r} if rank == 0 else None, **{changes!r})
save_file({{name: tensor.contiguous() for name, tensor in student.state_dict().items()}}, folder / f"rank{{rank}}.safetensors")
(folder / f"rank{{rank}}.json").write_text(json.dumps([history.to_json(), history.is_main, listener.notes]))
PartialState().destroy_process_group()
"""


def launch(launcher, folder, *, stop_at=None, **changes):
    """Runs the reference training in two processes; returns the launcher's exit code and what it said."""
    program = folder / "program.py"
    program.write_text(textwrap.dedent(PROGRAM).format(support=str(SUPPORT), folder=str(folder), stop_at=stop_at, changes=changes))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *(part.format(port=port) for part in LAUNCHERS[launcher]), str(program)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stderr


def results(folder):
    """Weights of each process, and its history, role and notes."""
    weights = [load_file(folder / f"rank{rank}.safetensors") for rank in (0, 1)]
    return weights, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("launcher", [pytest.param("torchrun"), pytest.param("accelerate", marks=pytest.mark.slow)])
def test_two_processes_train_as_one(launcher, tmp_path):
    """With figures of batch normalizations that stay: the same weights and losses as one process has for the same batches, but for rounding."""
    code, said = launch(launcher, tmp_path, freeze_batch_norm=True)
    assert code == 0, said
    weights, told = results(tmp_path)
    assert equal(*weights)
    student, history, listener = reference_training(tmp_path / "one", freeze_batch_norm=True)
    assert all(torch.allclose(tensor, weights[0][name], rtol=1e-4, atol=1e-5) for name, tensor in student.state_dict().items())
    assert told[0][0]["epochs"][-1]["train_loss"] == pytest.approx(history.epochs[-1]["train_loss"], rel=1e-4)
    assert told[0][0]["epochs"][-1]["val_loss"] == pytest.approx(history.epochs[-1]["val_loss"], rel=1e-4)
    assert [item["val_loss"] for item in told[0][0]["epochs"]] == [item["val_loss"] for item in told[1][0]["epochs"]]
    assert [main for _, main, _ in told] == [True, False]
    assert len(told[0][2]) == len(listener.notes)
    assert told[1][2] == []


@pytest.mark.slow
def test_two_processes_end_alike_also_when_interrupted(tmp_path):
    """With batch normalizations that learn: both have the figures of the first, before and after going on."""
    for folder in (tmp_path / "whole", tmp_path / "cut"):
        folder.mkdir()
    code, said = launch("torchrun", tmp_path / "whole", epochs=3)
    assert code == 0, said
    code, said = launch("torchrun", tmp_path / "cut", stop_at="epoch 2 ", epochs=3)
    assert code != 0
    assert "Stopped" in said
    code, said = launch("torchrun", tmp_path / "cut", epochs=3)
    assert code == 0, said
    (first, second), told = results(tmp_path / "cut")
    assert equal(first, second)
    assert equal(first, results(tmp_path / "whole")[0][0])
    assert "training goes on after epoch 1" in told[0][2]
