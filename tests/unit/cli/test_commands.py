"""The commands' own small decisions: names of overlays, guesses of init, documents of several targets."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import assert_refused, edgekit
from device_bundles import MANY, frame, write_device_bundle
from PIL import Image

from edgekit.bundle.manifest import Gate
from edgekit.catalog.recipe import load_recipe
from edgekit.cli import compile as compile_command
from edgekit.cli.run_output import OverlayNames
from edgekit.errors import CatalogError


@pytest.mark.parametrize(
    ("path", "index", "name"),
    [
        ("a/b.png", 0, "b-0000.png"),
        ("b.dcm", 12, "b-0012.png"),
        ("../../etc/passwd", 0, "passwd-0000.png"),
        (".hidden", 0, "hidden-0000.png"),
        ("..", 0, "frame-0000.png"),
        ("ä ö\n.png", 0, "frame-0000.png"),
        ("a b;c.png", 3, "a-b-c-0003.png"),
        ("-option.png", 0, "option-0000.png"),
    ],
)
def test_names_of_overlays(path, index, name):
    """An overlay is named after its input and frame, in signs every file system takes, never outside the folder."""
    found = OverlayNames().of(path, index)
    assert found == name
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*\.png", found)


def test_names_of_overlays_are_never_given_twice():
    """Inputs of the same name in several folders get overlays of their own."""
    names = OverlayNames()
    found = [names.of(f"{folder}/x.png", 0) for folder in ("a", "b", "c")] + [names.of("x-0000~2.png", 0), names.of("x-0000-2.png", 0)]
    names.begin()
    found.append(names.of("x-0000-2.png", 0))
    assert found[:3] == ["x-0000.png", "x-0000~2.png", "x-0000~3.png"]
    assert len(set(found)) == 6


def test_names_of_overlays_take_no_memory_for_each_frame():
    """A camera that runs for hours has one entry."""
    names = OverlayNames()
    assert len({names.of("camera:0", index) for index in range(20_000)}) == 20_000
    assert len(names._stems) == 1


def test_multilabel_answers(tmp_path, capfd):
    """A multilabel answer is a list in JSON, and a sum or `none` for people; the map is the likeliest label's."""
    Image.fromarray(np.full((16, 16), 200, dtype=np.uint8)).save(tmp_path / "x.png")
    bundle = write_device_bundle(tmp_path / "x.edgekit", output=MANY)
    line = edgekit(capfd, "run", bundle, tmp_path / "x.png", "--json").lines[0]
    assert line["label"] == ["cyst", "calcification"]
    assert line["cam"]["class"] == "calcification"
    assert "cyst + calcification" in edgekit(capfd, "run", bundle, tmp_path / "x.png").out


def test_a_bundle_without_a_map(tmp_path, capfd):
    """Without a map, `cam` and `overlay` are null and the reason is said with each line; sentences without --overlay ask for no map, and say nothing of it."""
    Image.fromarray(frame()).save(tmp_path / "x.png")
    bundle = write_device_bundle(tmp_path / "x.edgekit", cam=False)
    line = edgekit(capfd, "run", bundle, tmp_path / "x.png", "--json").lines[0]
    assert (line["cam"], line["overlay"], line["reason"]) == (None, None, "the head is not linear")
    assert "[" not in edgekit(capfd, "run", bundle, tmp_path / "x.png").out
    assert "none: the head is not linear" in edgekit(capfd, "inspect", bundle).out


def test_a_gate_that_proved_nothing_is_not_called_passed(tmp_path, capfd):
    """`inspect` says what each gate came to; let through on too few frames has words of its own."""
    gates = tuple(
        Gate(name=name, value=0.0, bound=0.05, passed=passed, status=status)
        for name, passed, status in (("flips", True, "passed"), ("sensitivity", True, "not demonstrated"), ("specificity", False, None))
    )
    bundle = write_device_bundle(tmp_path / "x.edgekit", accepted=False, acceptance=gates)
    found = re.findall(r"gate +(\w+): 0\.0000 against 0\.0500, (.*)", edgekit(capfd, "inspect", bundle).out)
    assert found == [("flips", "passed"), ("sensitivity", "let through, not demonstrated"), ("specificity", "FAILED")]


def test_the_peak_is_a_row_and_a_column(tmp_path, capfd):
    """The peak of the map is where the evidence is largest, as [row, column]."""
    pixels = np.zeros((16, 16), dtype=np.uint8)
    pixels[4:8, 12:16] = 255  # cell in row 1, column 3
    Image.fromarray(pixels).save(tmp_path / "x.png")
    bundle = write_device_bundle(tmp_path / "x.edgekit", output=MANY)
    line = edgekit(capfd, "run", bundle, tmp_path / "x.png", "--json").lines[0]
    expected = {"cyst": [1, 3], "mass": [0, 0]}[line["cam"]["class"]]
    assert (line["cam"]["shape"], line["cam"]["peak"]) == ([4, 4], expected)


def class_folders(folder, labels):
    """Eight groups of one frame each a label."""
    for number, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for index in range(8):
            pixels = np.random.default_rng([number, index]).integers(0, 256, (40, 40), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"p{number}{index}_0.png")
    return folder


@pytest.mark.parametrize(
    ("labels", "task"), [(("benign", "malignant"), "binary"), (("a", "b", "c"), "multiclass"), (("a'b", "é"), "binary")]
)
def test_the_starter_recipe_is_a_recipe(tmp_path, capfd, labels, task):
    """What `init` writes is read by `compile`: labels in order, task by their number, the last one positive."""
    folder = class_folders(tmp_path / "My Frames!", labels)
    ran = edgekit(capfd, "init", folder, "--group", r"(p\d+)_")
    assert ran.code == 0, ran.err
    recipe = load_recipe(folder / "recipe.toml")
    assert (recipe.name, recipe.model.labels, recipe.model.task, recipe.model.positive) == ("my-frames", labels, task, labels[-1])
    assert Path(recipe.data.manifest) == folder / "manifest.csv"
    assert f"edgekit compile {folder / 'recipe.toml'}" in ran.out


def test_init_finds_out_first_that_it_cannot_write(tmp_path, capfd, monkeypatch):
    """A folder that cannot be written is refused before any frame is read."""
    from edgekit.bundle import writer
    from edgekit.evaluation import splits

    folder = class_folders(tmp_path / "frames", ("a", "b"))
    monkeypatch.setattr(splits, "plan_splits", lambda *_, **__: pytest.fail("frames were read"))

    def refuse(*_):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(writer, "_create_temporary", refuse)
    assert_refused(edgekit(capfd, "init", folder), "Read-only file system")


def test_several_targets_are_one_document():
    """With several targets the contract's keys are about all of them, and each has its own document."""

    def finished(target, accepted):
        document = {"target": {"name": target}, "gates": [{"name": "flips", "passed": accepted}], "bundles": [f"{target}.edgekit"]}
        return SimpleNamespace(document=document, accepted=accepted)

    document = compile_command._document([finished("x", True), finished("y", False)])
    assert document["accepted"] is False
    assert document["bundles"] == ["x.edgekit", "y.edgekit"]
    assert [gate["target"] for gate in document["gates"]] == ["x", "y"]
    assert [item["target"]["name"] for item in document["targets"]] == ["x", "y"]
    assert "targets" not in compile_command._document([finished("x", True)])


def test_settings_and_targets_reach_the_recipe(monkeypatch, capfd, tmp_path):
    """--set and --target are applied in the order given, before anything is compiled."""
    from edgekit.compiler import pipeline

    seen = {}

    def compile_recipe(recipe, **options):
        seen.update(recipe=recipe, **options)
        raise CatalogError("enough")

    monkeypatch.setattr(pipeline, "compile_recipe", compile_recipe)
    monkeypatch.chdir(tmp_path)
    settings = ["--set", "data.manifest=m.csv", "--set", "accept.max_flips=0.5", "--set", "accept.max_flips=0.25"]
    assert_refused(edgekit(capfd, "compile", "phantom-lung", *settings, "--target", "x86-64", "--out", "o"), "enough")
    assert seen["recipe"].accept.max_flips == 0.25
    assert seen["recipe"].data.manifest == str(tmp_path / "m.csv")
    assert (seen["out"], seen["workdir"]) == (Path("o"), Path(".edgekit"))
