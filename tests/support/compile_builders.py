"""A whole compile in seconds: a few phantom patients, a tiny untrained network, and a recipe for them.

The network is `test_resnet` of timm with random weights of a fixed seed: it says nothing right, and says it deterministically. The default recipe's gates
let everything pass; `REFUSING` are the settings of gates that it fails.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgekit.imaging import phantom
from edgekit.imaging.phantom_scanner import PhantomSpec

SPEC = PhantomSpec(rows=64, columns=80, lines=64, samples=128)
NAME = "tiny-phantom"
REFUSING = ("accept.auc_margin=0.0001", "accept.max_flips=0.0")

RECIPE = f"""\
name = "{NAME}"
version = "1.0.0"
targets = ["x86-64"]

[model]
source = "timm:test_resnet"
weights = "tiny.safetensors"
labels = ["a-lines", "b-lines", "consolidation"]
task = "multiclass"
positive = "consolidation"

[input]
color = "grey"
channels = 3
resize = [64, 64]
mean = [127.5, 127.5, 127.5]
std = [127.5, 127.5, 127.5]

[data]
manifest = "data/manifest.csv"

[compress]
quantize = {{ ladder = ["ptq"] }}

[accept]
auc_margin = 0.5
max_harmful_flips = 1.0
max_flips = 1.0
min_cam_pearson = -1.0
min_cam_pearson_p5 = -1.0
min_cam_overlap = 0.0
min_cam_peak_kept = 0.0
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Project:
    """A folder with everything that a compile needs."""

    folder: Path

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.toml"

    @property
    def manifest(self) -> Path:
        return self.folder / "data" / phantom.MANIFEST

    @property
    def weights(self) -> Path:
        return self.folder / "tiny.safetensors"

    @property
    def workdir(self) -> Path:
        return self.folder / "work"

    @property
    def bundle(self) -> Path:
        """Accepted by its gates."""
        return self.folder / "out" / f"{NAME}.edgekit"

    @property
    def unaccepted(self) -> Path:
        """Refused by its gates, and written because enforce = false."""
        return self.folder / "out" / "unaccepted.edgekit"

    @property
    def frame(self) -> Path:
        """One frame of the data set."""
        return self.folder / "data" / "a-lines" / "p000_f000.png"


def write_project(folder: Path) -> Project:
    """Writes data, weights and recipe; nothing is compiled."""
    project = Project(folder=folder)
    phantom.write_dataset(folder / "data", patients_per_class=24, frames_per_patient=1, seed=3, spec=SPEC)
    project.recipe.write_text(RECIPE)
    write_weights(project.weights)
    return project


def write_weights(path: Path, *, labels: int = 3, seed: int = 0) -> Path:
    """Random weights of the tiny network, the same for the same seed; the head is widened so that the answers differ between frames."""
    from edgekit.compiler.torchvision_ops import define_missing_operators

    define_missing_operators()
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=labels, in_chans=3)
    with torch.no_grad():
        model.get_classifier().weight.mul_(50)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path
