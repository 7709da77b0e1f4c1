"""The device side in a fresh interpreter that refuses the compile side's libraries and the network."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

REFUSED = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "nncf", "scipy", "sklearn", "openvino_telemetry", "edgekit.compiler")

GUARD = f"""
import socket, sys
REFUSED = {REFUSED!r}

class Guard:
    def find_spec(self, name, path=None, target=None):
        if any(name == refused or name.startswith(refused + ".") for refused in REFUSED):
            raise ImportError(f"{{name}} is refused here")

sys.meta_path.insert(0, Guard())

def no_network(*arguments, **options):
    raise RuntimeError("a socket was opened")

socket.socket.__init__ = no_network
socket.create_connection = socket.getaddrinfo = no_network
"""

PREDICT = """
import json, sys
import numpy as np
import edgekit
from PIL import Image
classifier = edgekit.load(sys.argv[1])
frame = np.asarray(Image.open(sys.argv[2]))
prediction = classifier.predict(frame)
picture = prediction.overlay()
found = [name for name in REFUSED if sys.modules.get(name) is not None]
print(json.dumps([prediction.label, list(prediction.cam.shape), list(picture.shape), found]))
"""


def run_guarded(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", GUARD + code, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_guard_refuses():
    """The guard of these tests works: a refused library and a socket raise."""
    for line in ("import torch", "import edgekit.compiler.pipeline", "import socket; socket.socket()", "import scipy.stats"):
        assert run_guarded(line).returncode != 0


def test_predict_needs_no_torch_and_no_network(project):
    """load, predict and overlay work where torch, onnx, nncf, scipy, sklearn and timm cannot be imported and no socket can be opened."""
    ran = run_guarded(PREDICT, project.bundle, project.frame)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == ["b-lines", [2, 2], [64, 80, 3], []]


@pytest.mark.parametrize("command", ["run", "evaluate", "inspect", "verify", "profile", "targets"])
def test_commands_of_the_device(command, project):
    """Every command of the device side works without them too."""
    arguments = {
        "run": [project.bundle, project.frame],
        "evaluate": [project.bundle, "--data", project.manifest],
        "inspect": [project.bundle],
        "verify": [project.bundle],
        "profile": [project.bundle, "--seconds", "0.5"],
    }.get(command, [])
    code = (
        "from edgekit.cli.main import main\nsys.exit(main(sys.argv[1:]) or 10 * any(sys.modules.get(name) is not None for name in REFUSED))"
    )
    ran = run_guarded(code, command, *arguments)
    assert ran.returncode == 0, ran.stderr


def test_doctor_looks_without_importing():
    """`doctor` says which of them are installed without importing any but an engine's own library, which it has to load to know that it can."""
    code = "import sys\nfrom edgekit.cli.main import main\nmain(['doctor'])\nprint([name for name in REFUSED if name != 'onnxruntime' and sys.modules.get(name) is not None])"
    ran = subprocess.run([sys.executable, "-c", f"REFUSED = {REFUSED!r}\n{code}"], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_importing_edgekit_costs_nothing():
    """`import edgekit` loads neither numpy nor any engine; the public names come with their first use."""
    code = "import sys, edgekit\nprint([name for name in ('numpy', 'PIL', 'openvino', 'typer') if name in sys.modules], sorted(edgekit.__all__))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[] ['Classifier', 'EdgekitError', 'Prediction', '__version__', 'load']"
