"""Bad recipes and bad data: each wrong key, weight, label and row is named before anything is written."""

from __future__ import annotations

import csv

import pytest
from command_line import assert_refused, edgekit
from compile_builders import write_weights
from PIL import Image


def compiled(capfd, project, tmp_path, *settings, more=()):
    """Compiles the project's recipe with settings, into `tmp_path/out`; asserts that nothing is left there."""
    out = tmp_path / "out"
    arguments = [part for setting in settings for part in ("--set", setting)]
    ran = edgekit(capfd, "compile", project.recipe, "--workdir", project.workdir, "--out", out, *arguments, *more)
    assert not out.exists()
    assert ran.out == ""
    return ran


# Setting to what the error says and what the hint says.
SETTINGS = {
    "accept.max_flip=1": ("accept.max_flip: unknown key", "did you mean 'max_flips'?"),
    "modle.weights=x": ("modle: unknown key", "did you mean 'model'?"),
    "input.colour=grey": ("input.colour: unknown key", "did you mean 'color'?"),
    "input.color=gray": ("'gray' is not known", "did you mean 'grey'?"),
    "input.resize=[64]": ("input.resize: expected 2 values, found 1", ""),
    "input.resize=[0, 64]": ("resize must be between", ""),
    "input.crop=[65, 64]": ("crop [65, 64] is larger than resize", ""),
    "input.mean=[0.0]": ("mean needs 3 values", ""),
    "input.std=[0.0, 1.0, 1.0]": ("input: std must be", ""),
    "model.task=multi": ("'multi' is not known", "did you mean 'multilabel'?"),
    "model.positive=consolidated": ("'consolidated' is not one of the labels", ""),
    'model.labels=["a", "a", "consolidation"]': ("labels are repeated", ""),
    "model.source=resnet18": ("is not KIND:ARGUMENT", ""),
    "model.source=tim:resnet18": ("tim", "timm"),
    "model.source=timm:resnet1O": ("resnet1O", "did you mean 'resnet1"),
    "model.expected={split = 'test'}": ("neither auc nor accuracy", ""),
    "accept.auc_margin=0": ("auc_margin must be above 0", ""),
    "accept.auc_margin=nan": ("finite", ""),
    "accept.enforce=yes": ("accept.enforce: expected bool, found str", ""),
    "compress.prune={latency_target = 0.5}": ("prune needs a distill part", ""),
    "compress.prune={latency_goal = 0.5}": ("compress.prune.latency_goal: unknown key", "did you mean 'latency_target'?"),
    "compress.quantize.ladder=['ptq-ful']": ("'ptq-ful' is not known", "did you mean 'ptq-full'?"),
    "accept.threshold_split=test": ("threshold_split must be 'val'", ""),
    "compress.quantize.ladder=[]": ("the ladder is empty", ""),
    "calibration.recipe=defualt": ("'defualt' is not in calibration/", "did you mean 'default'?"),
    "name=Tiny Phantom": ("lower-case", ""),
    "targets=[]": ("targets is empty", ""),
    "data.columns={file = 'label'}": ("one column cannot serve twice", ""),
    "model.weights": ("is not key=value", ""),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_wrong_key_or_value(setting, project, tmp_path, capfd):
    """Each wrong key or value of a recipe is named as a path, with the nearest known one."""
    says, hint = SETTINGS[setting]
    ran = compiled(capfd, project, tmp_path, setting)
    assert_refused(ran, says)
    assert hint in ran.starting("hint:")[0]


def test_an_unknown_target(project, tmp_path, capfd):
    """An unknown target is refused with the nearest, from the option as from the recipe."""
    for more, setting in ((("--target", "x86_64"), ()), ((), ("targets=['x86_64']",))):
        ran = compiled(capfd, project, tmp_path, *setting, more=more)
        assert_refused(ran, "'x86_64' is not in targets/")
        assert "did you mean 'x86-64'?" in ran.err


RECIPES = {
    "missing": (lambda _path, _text: None, "cannot be read"),
    "a folder": (lambda path, _text: path.mkdir(), "cannot be read: Is a directory"),
    "empty": (lambda path, _text: path.touch(), "the key 'name' is missing"),
    "not TOML": (lambda path, text: path.write_text(text + "[["), "is not TOML"),
    "not text": (lambda path, _text: path.write_bytes(bytes(range(256))), "is not TOML"),
    "without a model": (lambda path, text: path.write_text(text.replace("[model]", "[modell]")), "modell: unknown key"),
    "with a key twice": (lambda path, text: path.write_text(text + "\n[input]\n"), "is not TOML"),
}


@pytest.mark.parametrize("kind", RECIPES)
def test_a_recipe_that_is_none(kind, project, tmp_path, capfd):
    """A file that is no recipe is refused with what is wrong and where."""
    spoil, says = RECIPES[kind]
    path = tmp_path / "recipe.toml"
    spoil(path, project.recipe.read_text())
    ran = edgekit(capfd, "compile", path, "--out", tmp_path / "out", "--workdir", tmp_path / "work")
    assert_refused(ran, says)
    assert str(path) in ran.err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "work").exists()


def test_a_recipe_of_no_name(capfd):
    """A name that is no recipe is refused with the nearest."""
    ran = edgekit(capfd, "compile", "phantom-lungs")
    assert_refused(ran, "'phantom-lungs' is not in models/")
    assert "did you mean 'phantom-lung'?" in ran.err


def test_several_targets_need_a_folder(project, tmp_path, capfd, monkeypatch):
    """One file cannot take the bundles of several targets."""
    monkeypatch.setattr("edgekit.catalog.files.names", lambda section: ("default",) if section == "calibration" else ("x86-64", "x86-65"))
    ran = edgekit(capfd, "compile", project.recipe, "--target", "x86-64", "--target", "x86-65", "--out", tmp_path / "x.edgekit")
    assert_refused(ran, "is one file, but the recipe has 2 targets")


WEIGHTS = {
    "missing": (lambda _path, _good: None, "is not there"),
    "a folder": (lambda path, _good: path.mkdir(), "is not there"),
    "empty": (lambda path, _good: path.touch(), ""),
    "cut short": (lambda path, good: path.write_bytes(good[:-100]), ""),
    "text": (lambda path, _good: path.write_text("hello"), ""),
}


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weights_that_are_none(kind, suffix, project, tmp_path, capfd):
    """A file that holds no weights is refused by its name."""
    spoil, says = WEIGHTS[kind]
    path = tmp_path / f"tiny.{suffix}"
    spoil(path, project.weights.read_bytes())
    ran = compiled(capfd, project, tmp_path, f"model.weights={path}")
    assert_refused(ran, says)
    assert str(path) in ran.err


def test_weights_of_another_number_of_labels(project, tmp_path, capfd):
    """Weights with four outputs for a recipe of three labels: both numbers are said."""
    path = write_weights(tmp_path / "four.safetensors", labels=4)
    ran = compiled(capfd, project, tmp_path, f"model.weights={path}")
    assert_refused(ran, "four.safetensors does not fit the architecture: fc.weight is (4, 96) in the file and (3, 96)")
    assert "model.labels" in ran.err


def test_weights_of_another_architecture(project, tmp_path, capfd):
    """Weights that do not fit the architecture: a tensor is named."""
    ran = compiled(capfd, project, tmp_path, "model.source=timm:test_convnext")
    assert_refused(ran, "tiny.safetensors does not fit the architecture: ")
    assert "tensors are missing" in ran.err


def test_a_teacher_that_does_not_score_what_is_expected(project, tmp_path, capfd):
    """A teacher that scores something else than the recipe expects stops the compile, with both figures."""
    ran = compiled(capfd, project, tmp_path, "model.expected={split='test', auc=0.963}")
    assert_refused(ran, "auc on test is 0.6")
    assert "0.9630" in ran.err


def rows_of(project):
    """The rows of the project's manifest, with absolute paths."""
    with project.manifest.open(newline="") as stream:
        return [{**row, "file": str(project.manifest.parent / row["file"]), "mask": ""} for row in csv.DictReader(stream)]


def write_rows(path, rows):
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["file", "label", "patient_or_video_id", "split", "mask"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def first(rows, **wanted):
    """The first row with these cells."""
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def leave_out(rows, **wanted):
    rows[:] = [row for row in rows if not all(row[key] == value for key, value in wanted.items())]


def same_group(rows):
    first(rows, split="val")["patient_or_video_id"] = first(rows, split="test")["patient_or_video_id"]


# Name to what is done to the rows, what the error says, and whether `evaluate --split test` meets it too.
ROWS = {
    "a group in two splits": (same_group, "phantom-0", False),
    "an unknown label": (lambda rows: first(rows, split="test").update(label="c-lines"), "'c-lines'", True),
    "an empty label": (lambda rows: first(rows, split="test").update(label=" "), "column 'label' is empty", True),
    "an empty group": (lambda rows: first(rows, split="test").update(patient_or_video_id=""), "'patient_or_video_id' is empty", True),
    "a frame that is not there": (lambda rows: first(rows, split="test").update(file="gone.png"), "gone.png", True),
    "a frame twice": (lambda rows: rows.append({**first(rows, split="test")}), "p0", True),
    "no test split": (lambda rows: leave_out(rows, split="test"), "no row has the split 'test'", True),
    "no val split": (lambda rows: leave_out(rows, split="val"), "no row has the split 'val'", False),
    "a label missing in test": (
        lambda rows: leave_out(rows, split="test", label="b-lines"),
        "'test' (12 frames) has no frame of 'b-lines'",
        True,
    ),
    "a label missing in val": (
        lambda rows: leave_out(rows, split="val", label="b-lines"),
        "'val' (8 frames) has no frame of 'b-lines'",
        False,
    ),
    "too few to calibrate": (
        lambda rows: leave_out(rows, split="train"),
        "6 calibration frames, fewer than the 32",
        False,
    ),
    "a misspelt split": (lambda rows: first(rows, split="test").update(split="Test"), "the split 'Test' is not known", True),
    "no rows": (lambda rows: rows.clear(), "no rows", True),
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_row_that_is_wrong(kind, project, tmp_path, capfd):
    """Each wrong row or split is named, by `compile` and, where it is about the test split, by `evaluate`."""
    spoil, says, both = ROWS[kind]
    rows = rows_of(project)
    spoil(rows)
    path = write_rows(tmp_path / "manifest.csv", rows)
    ran = compiled(capfd, project, tmp_path, f"data.manifest={path}")
    assert_refused(ran, says)
    assert str(path) in ran.err
    if both:
        ran = edgekit(capfd, "evaluate", project.bundle, "--data", path, "--json")
        assert_refused(ran, says)
        assert ran.out == ""


MANIFESTS = {
    "missing": (lambda _path: None, "No such file"),
    "a folder": (lambda path: path.mkdir(), "Is a directory"),
    "empty": (lambda path: path.touch(), "is empty"),
    "with semicolons": (lambda path: path.write_text("file;label;split;patient_or_video_id\n"), "'file' is missing"),
    "without a column": (lambda path: path.write_text("file,lable,split,patient_or_video_id\n"), "'label' is missing"),
    "UTF-16": (lambda path: path.write_text("file,label", encoding="utf-16"), "UTF-16"),
    "a picture": (lambda path: Image.new("L", (9, 9)).save(path, "PNG"), "line "),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_that_is_none(kind, project, tmp_path, capfd):
    """A file that is no data manifest is refused by `compile` and `evaluate` with what is wrong."""
    spoil, says = MANIFESTS[kind]
    path = tmp_path / "manifest.csv"
    spoil(path)
    for ran in (
        compiled(capfd, project, tmp_path, f"data.manifest={path}"),
        edgekit(capfd, "evaluate", project.bundle, "--data", path),
    ):
        assert_refused(ran, says)
        assert str(path) in ran.err


@pytest.mark.parametrize("split", ["test", "val", "train"])
def test_a_frame_that_is_broken(split, project, tmp_path, capfd):
    """A frame that cannot be read stops compile and evaluate with its name; nothing is left in the work folder."""
    rows = rows_of(project)
    broken = tmp_path / "broken.png"
    broken.write_bytes(project.frame.read_bytes()[:500])
    first(rows, split=split)["file"] = str(broken)
    path = write_rows(tmp_path / "manifest.csv", rows)
    before = sorted(path.name for path in project.workdir.iterdir())
    ran = compiled(capfd, project, tmp_path, f"data.manifest={path}")
    assert_refused(ran, str(broken))
    left = {path.name for path in project.workdir.iterdir()} - set(before)
    assert not any(name.startswith(".") for name in left)
    ran = edgekit(capfd, "evaluate", project.bundle, "--data", path, "--split", split)
    assert_refused(ran, str(broken))


def test_columns_of_evaluate(project, capfd):
    """A column option that names no column, or one twice, is refused with the columns there are."""
    ran = edgekit(capfd, "evaluate", project.bundle, "--data", project.manifest, "--label-column", "lable")
    assert_refused(ran, "'lable' is missing")
    assert "did you mean 'label'?" in ran.err
    assert_refused(edgekit(capfd, "evaluate", project.bundle, "--data", project.manifest, "--label-column", "file"), "cannot serve twice")
    assert_refused(edgekit(capfd, "evaluate", project.bundle, "--data", project.manifest, "--split", "tst"), "'tst'")


def test_labels_of_another_model(project, tmp_path, capfd):
    """A recipe whose labels are not the manifest's names the label and its line."""
    ran = compiled(capfd, project, tmp_path, 'model.labels=["a-line", "b-lines", "consolidation"]')
    assert_refused(ran, "line 2")
    assert "'a-lines'" in ran.err
    assert "did you mean 'a-line'?" in ran.err


INIT = {
    "missing": (lambda folder: folder.rmdir(), "cannot read the folder"),
    "empty": (lambda _folder: None, ""),
    "a file": (lambda folder: (folder.rmdir(), folder.touch()), "Not a directory"),
    "frames beside": (lambda folder: Image.new("L", (9, 9)).save(folder / "a.png"), "beside its class folders"),
    "one class": (lambda folder: (folder.joinpath("a").mkdir(), Image.new("L", (9, 9)).save(folder / "a" / "a.png")), ""),
    "a broken frame": (
        lambda folder: [(folder.joinpath(name).mkdir(), folder.joinpath(name, "a.png").write_text("x")) for name in "ab"],
        "a.png",
    ),
}


@pytest.mark.parametrize("kind", INIT)
def test_folders_that_init_refuses(kind, tmp_path, capfd):
    """`init` refuses what is no folder of class folders, and writes nothing."""
    spoil, says = INIT[kind]
    folder = tmp_path / "frames"
    folder.mkdir()
    spoil(folder)
    assert_refused(edgekit(capfd, "init", folder), says)
    assert not folder.joinpath("manifest.csv").exists()
    assert not folder.joinpath("recipe.toml").exists()


def test_init_with_a_pattern_that_is_none(tmp_path, capfd):
    """A --group that is no regular expression is refused."""
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("L", (9, 9), ord(name)).save(tmp_path / name / "a.png")
    assert_refused(edgekit(capfd, "init", tmp_path, "--group", "(("), "((")
