"""The built-in default: a small teacher trained on synthetic lung ultrasound, so that the main job can be seen without any data.

The data is synthetic (`imaging/phantom.py`). What comes out shows how edgekit works, and nothing about lungs.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.writer import write_atomically
from edgekit.catalog.recipe import load_recipe
from edgekit.compiler.load.source import normalize
from edgekit.compiler.progress import Progress
from edgekit.compiler.threads import let_idle_threads_sleep
from edgekit.compiler.torchvision_ops import define_missing_operators
from edgekit.evaluation.dataset import load_manifest, truth_matrix
from edgekit.imaging import phantom
from edgekit.imaging.frames import only_frame
from edgekit.imaging.preprocess import preprocess

if TYPE_CHECKING:
    from edgekit.catalog.recipe import Recipe

RECIPE = "phantom-lung"
DATA_SEED = 1
WEIGHTS = "teacher.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How the demonstration's teacher is trained."""

    patients_per_class: int = 48
    frames_per_patient: int = 4
    epochs: int = 8
    batch: int = 16
    learning_rate: float = 2e-3
    seed: int = 0


def prepare_demo(folder: Path, progress: Progress, training: Training | None = None) -> Recipe:
    """Makes the data set and the teacher in a folder, where they are not there yet.

    Args:
        folder: `data/` and `teacher.safetensors` are written into it.
        progress: Told of both.
        training: How much to train.

    Returns:
        The recipe that compiles the teacher.
    """
    let_idle_threads_sleep()
    chosen = training or Training()
    manifest = folder / "data" / phantom.MANIFEST
    if not manifest.is_file():
        progress.begin("synthetic data set", cached=False)
        _write_data(manifest.parent, chosen)
        progress.end()
    weights = folder / WEIGHTS
    recipe = load_recipe(
        RECIPE, settings=[f"model.weights={json.dumps(str(weights.resolve()))}", f"data.manifest={json.dumps(str(manifest.resolve()))}"]
    )
    if not weights.is_file():
        train_teacher(recipe, weights, chosen, progress)
    return recipe


def _write_data(folder: Path, training: Training) -> None:
    """Makes the data set under a name of its own and renames it, so that an interrupted demonstration can be started again."""
    unfinished = folder.with_name(f".{folder.name}-unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    phantom.write_dataset(
        unfinished, patients_per_class=training.patients_per_class, frames_per_patient=training.frames_per_patient, seed=DATA_SEED
    )
    unfinished.rename(folder)


def train_teacher(recipe: Recipe, weights: Path, training: Training, progress: Progress) -> None:
    """Trains the recipe's architecture from scratch on the train split and writes its weights.

    Cross-entropy with AdamW and a one-cycle learning rate; frames are flipped, shifted and their gain varied.
    """
    define_missing_operators()
    import timm
    import torch
    from safetensors.torch import save

    torch.manual_seed(training.seed)
    random = np.random.default_rng(training.seed)
    frames, labels = _training_frames(recipe)
    model = timm.create_model(
        recipe.model.source.partition(":")[2], pretrained=False, num_classes=len(recipe.model.labels), in_chans=recipe.input.channels
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.learning_rate, weight_decay=0.05)
    steps = training.epochs * (len(frames) // training.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=training.learning_rate, total_steps=steps)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.05)
    progress.begin("teacher", cached=False)
    model.train()
    for step in range(steps):
        if step % (steps // training.epochs) == 0:
            order = random.permutation(len(frames))
        chosen = order[(step % (steps // training.epochs)) * training.batch :][: training.batch]
        batch = torch.from_numpy(normalize(augment(frames[chosen], random), recipe.input))
        loss = loss_of(model(batch), torch.from_numpy(labels[chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.step(step + 1, steps)
    progress.end()
    write_atomically(weights, [save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})])


def augment(frames: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Flips, shifts by up to 8 pixels, and varies the gain of frames.

    Args:
        frames: uint8 (frames, height, width, channels).
        random: Source of randomness.
    """
    changed = np.empty_like(frames)
    for index, frame in enumerate(frames):
        moved = frame[:, ::-1] if random.random() < 0.5 else frame
        moved = np.roll(moved, tuple(random.integers(-8, 9, size=2).tolist()), axis=(0, 1))
        changed[index] = np.clip(moved * random.uniform(0.8, 1.2) + random.uniform(-15, 15), 0, 255)
    return changed


def _training_frames(recipe: Recipe) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    output = recipe.model.output
    samples = load_manifest(Path(recipe.data.manifest), recipe.data.columns, output).split("train")
    frames = np.concatenate([preprocess(only_frame(sample.path), recipe.input) for sample in samples])
    return frames, truth_matrix(samples, output).argmax(axis=1)
