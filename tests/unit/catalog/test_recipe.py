"""Recipes: every packaged one decodes, `--set` and its paths, and what is refused with the nearest known name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.catalog import files
from edgekit.catalog.compress import CompressSpec, QuantizeSpec
from edgekit.catalog.recipe import (
    CalibrationRef,
    DataSpec,
    Expected,
    ModelSpec,
    Recipe,
    load_recipe,
)
from edgekit.errors import CatalogError
from edgekit.schema.accept import AcceptSpec
from edgekit.schema.data import Columns
from edgekit.schema.decode import decode, encode
from edgekit.schema.model_io import InputSpec

RECIPE = """\
name = "lung"
version = "1.0.0"
targets = ["x86-64"]

[model]
source = "timm:resnet10t"
weights = "lung.safetensors"
labels = ["a", "b"]
task = "multiclass"

[input]
color = "grey"
channels = 3
resize = [64, 64]
mean = [127.5, 127.5, 127.5]
std = [127.5, 127.5, 127.5]

[data]
manifest = "data/manifest.csv"
"""


@pytest.fixture
def recipe(tmp_path):
    """A recipe in a folder of its own."""
    path = tmp_path / "recipes" / "lung.toml"
    path.parent.mkdir()
    path.write_text(RECIPE)
    return path


def changed(recipe, old, new):
    assert old in RECIPE
    recipe.write_text(RECIPE.replace(old, new))
    return recipe


@pytest.mark.parametrize("name", files.names("models"))
def test_every_packaged_recipe_is_whole(name):
    """Weights and data come from the command line; everything else is in the file, and its name is the file's."""
    found = load_recipe(name, settings=["model.weights=w.safetensors", "data.manifest=m.csv"])
    assert found.name == name
    assert found.model.weights is not None


@pytest.mark.parametrize("name", files.names("models"))
def test_a_packaged_recipe_names_no_path(name):
    """What is outside the repository is named by whoever compiles, so a packaged recipe alone is not complete."""
    table = files.read_toml(files.find("models", name))
    assert "weights" not in table["model"]
    assert "manifest" not in table["data"]
    with pytest.raises(CatalogError, match="manifest"):
        load_recipe(name)


def test_an_unknown_recipe_names_the_nearest():
    """A bare name is looked up in models/."""
    with pytest.raises(CatalogError, match=r"'kermany-lite' is not in models/") as caught:
        load_recipe("kermany-lite")
    assert caught.value.hint.startswith("did you mean 'kermany-lite0'?")


def test_a_file_wins_over_a_packaged_name(tmp_path, monkeypatch):
    """A folder of that name is no recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kermany-lite0").mkdir()
    with pytest.raises(CatalogError, match="manifest"):  # the packaged one is found
        load_recipe("kermany-lite0")
    (tmp_path / "phantom-lung").write_text(RECIPE)
    assert load_recipe("phantom-lung").name == "lung"


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".toml", "nul\0.toml", "nul\0", "missing/lung.toml", "."])
def test_a_path_that_cannot_be_a_file_is_refused(name):
    """Not even a name that the file system refuses raises anything but edgekit's own error."""
    with pytest.raises(CatalogError):
        load_recipe(name)


def test_paths_in_a_recipe_are_relative_to_it(recipe, tmp_path, monkeypatch):
    """The working directory does not matter."""
    monkeypatch.chdir(tmp_path)
    found = load_recipe("recipes/lung.toml")
    assert found.model.weights == str(recipe.parent / "lung.safetensors")
    assert found.data.manifest == str(recipe.parent / "data" / "manifest.csv")


def test_paths_of_settings_are_relative_to_the_working_directory(recipe, tmp_path, monkeypatch):
    """Other settings do not move the recipe's own paths."""
    monkeypatch.chdir(tmp_path)
    found = load_recipe(recipe, settings=["model.weights=here/w.pt", "data.columns.group=video"])
    assert found.model.weights == str(tmp_path / "here" / "w.pt")
    assert found.data.manifest == str(recipe.parent / "data" / "manifest.csv")
    assert found.data.columns.group == "video"


def test_absolute_paths_are_taken_as_they_are(recipe):
    """In a recipe and in a setting."""
    changed(recipe, '"lung.safetensors"', '"/models/lung.safetensors"')
    found = load_recipe(recipe, settings=["data.manifest=/frames/manifest.csv"])
    assert (found.model.weights, found.data.manifest) == ("/models/lung.safetensors", "/frames/manifest.csv")


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_source_that_is_a_file_is_a_path_too(recipe, tmp_path, monkeypatch, kind):
    """`onnx:` and `pt2:` follow the same rule; `timm:` and `python:` are no paths."""
    monkeypatch.chdir(tmp_path)
    assert load_recipe(recipe).model.source == "timm:resnet10t"
    assert load_recipe(recipe, settings=[f"model.source={kind}:net.bin"]).model.source == f"{kind}:{tmp_path / 'net.bin'}"
    changed(recipe, "timm:resnet10t", f"{kind}:net.bin")
    assert load_recipe(recipe).model.source == f"{kind}:{recipe.parent / 'net.bin'}"
    assert load_recipe(recipe, settings=["model.source=python:nets:build"]).model.source == "python:nets:build"


SETTINGS = {
    "text": ("version=1.0.0", lambda found: found.version, "1.0.0"),
    "quoted-text": ('version="2"', lambda found: found.version, "2"),
    "text-with-equals": ("data.columns.group=a=b", lambda found: found.data.columns.group, "a=b"),
    "text-with-a-hash": ("data.columns.group=a#b", lambda found: found.data.columns.group, "a#b"),
    "truth": ("accept.enforce=false", lambda found: found.accept.enforce, False),
    "integer": ("security_version=7", lambda found: found.security_version, 7),
    "integer-for-a-float": ("input.denoise_sigma=1", lambda found: found.input.denoise_sigma, 1.0),
    "list": ("input.crop=[32, 48]", lambda found: found.input.crop, (32, 48)),
    "list-of-text": ('compress.quantize.ladder=["float"]', lambda found: found.compress.quantize.ladder, ("float",)),
    "inline-table": ("model.expected={split='val', auc=0.9}", lambda found: found.model.expected, Expected(split="val", auc=0.9)),
    "merged-table": ("data.columns={group='g', label='y'}", lambda found: found.data.columns, Columns(group="g", label="y")),
    "spaces-around": (" version = 3.0.1 ", lambda found: found.version, "3.0.1"),
    "free-argument": ("model.arguments.drop_rate=0.1", lambda found: found.model.arguments, {"drop_rate": 0.1}),
}


@pytest.mark.parametrize(("setting", "read", "expected"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_is_toml_or_plain_text(recipe, setting, read, expected):
    """What is no TOML value is taken as text, so that paths and versions need no quotes."""
    assert read(load_recipe(recipe, settings=[setting])) == expected


def test_settings_apply_in_order(recipe):
    """The last one wins, and a table given at once keeps what it does not name."""
    found = load_recipe(recipe, settings=["accept.max_flips=0.1", "accept={auc_margin=0.2}", "accept.max_flips=0.3"])
    assert (found.accept.max_flips, found.accept.auc_margin) == (0.3, 0.2)


BAD_SETTINGS = {
    "no-equals": ("accept.enforce", r"--set 'accept\.enforce' is not key=value"),
    "no-key": ("=1", "is not key=value"),
    "empty-part": ("accept..enforce=1", "is not key=value"),
    "unknown-key": ("accept.max_flip=0.1", r"accept\.max_flip: unknown key"),
    "unknown-table": ("acept.max_flips=0.1", r"acept: unknown key"),
    "value-as-a-table": ("version.major=1", "version is a value, not a table"),
    "list-as-a-table": ("targets.first=x86-64", "targets is a value, not a table"),
    "table-as-a-value": ("accept=3", "accept: expected a table, found int 3"),
    "wrong-type": ("version=1.0", "version: expected str, found float"),
    "text-for-a-list": ("targets=x86-64", "targets: expected a list, found str 'x86-64'"),
    "deep": ("model.arguments.x=" + "[" * 5000, "arguments"),
    # TOML has dates and JSON has none, so a date could not be digested.
    "date": ("model.arguments.x=1979-05-27", r"model\.arguments\.x: expected a table, a list, a text, a number"),
    "huge-integer": ("model.arguments.x=0x" + "f" * 100, r"model\.arguments\.x: expected an integer of at most 64 bits"),
}


@pytest.mark.parametrize(("setting", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_a_setting_that_does_not_fit_is_refused(recipe, setting, message):
    """The message names the setting or the key."""
    if setting.endswith("[" * 5000):  # no TOML, so plain text: taken for a free argument
        assert load_recipe(recipe, settings=[setting]).model.arguments["x"] == "[" * 5000
        return
    with pytest.raises(CatalogError, match=message):
        load_recipe(recipe, settings=[setting])


BAD_RECIPES = {
    "unknown-key": ("[data]\n", "[data]\nmanifests = 1\n", r"data\.manifests: unknown key"),
    "unknown-target": ('["x86-64"]', '["x86_64"]', r"'x86_64' is not in targets/"),
    "no-targets": ('["x86-64"]', "[]", "targets is empty"),
    "target-twice": ('["x86-64"]', '["x86-64", "x86-64"]', "repeats a name"),
    "unknown-calibration": ("[data]\n", '[calibration]\nrecipe = "defalt"\n[data]\n', r"'defalt' is not in calibration/"),
    "bad-name": ('"lung"', '"Lung 1"', "must be lower-case letters"),
    "name-that-climbs": ('"lung"', '"../lung"', "must be lower-case letters"),
    "source-without-kind": ("timm:resnet10t", "resnet10t", "is not KIND:ARGUMENT"),
    "pruning-without-a-target": (
        "[data]\n",
        '[compress]\nprune = { criterion = "taylor" }\n[data]\n',
        "prune needs one of latency_target and macs_target",
    ),
    "pruning-alone": ("[data]\n", "[compress]\nprune = { latency_target = 0.5 }\n[data]\n", "prune needs a distill part"),
    "pruning-to-nothing": ("[data]\n", "[compress]\nprune = { latency_target = 0.0 }\n[data]\n", "latency_target is a share"),
    "pruning-by-two-measures": (
        "[data]\n",
        "[compress]\nprune = { latency_target = 0.5, macs_target = 0.5 }\n[data]\n",
        "prune needs one of latency_target and macs_target",
    ),
    "pruning-to-no-operations": ("[data]\n", "[compress]\nprune = { macs_target = 0.0 }\n[data]\n", "macs_target is a share"),
    "pruning-to-everything": ("[data]\n", "[compress]\nprune = { latency_target = 1 }\n[data]\n", "latency_target is a share"),
    "unknown-criterion": (
        "[data]\n",
        '[compress]\nprune = { latency_target = 0.5, criterion = "tailor" }\n[data]\n',
        "prune.criterion: str 'tailor' is not known here",
    ),
    "no-epochs": ("[data]\n", "[compress]\ndistill = { epochs = 0 }\n[data]\n", "epochs must be 1 to 10 000"),
    "nothing-to-learn-from": (
        "[data]\n",
        "[compress]\ndistill = { soft_weight = 0, hard_weight = 0 }\n[data]\n",
        "soft_weight or hard_weight must be above 0",
    ),
    "wild-augmentation": ("[data]\n", "[compress]\ndistill = { augment = { shift = 0.6 } }\n[data]\n", "shift must be between 0 and 0.5"),
    "untrained-student": (
        "[data]\n",
        '[compress]\nstudent = { source = "timm:resnet10t" }\n[data]\n',
        "student has neither weights nor a distill part",
    ),
    "student-of-no-kind": (
        "[data]\n",
        '[compress]\nstudent = { source = "resnet10t", weights = "w" }\n[data]\n',
        "is not KIND:ARGUMENT",
    ),
    "search-of-nothing": ("[data]\n", "[compress]\nsearch = true\n[data]\n", "search varies prune"),
    "too-many-layers": ("[data]\n", "[compress]\nquantize = { fallback_layers = 0 }\n[data]\n", "fallback_layers must be between"),
    "unknown-rung": ("[data]\n", '[compress]\nquantize = { ladder = ["ptqq"] }\n[data]\n', r"ladder\[0\]: str 'ptqq' is not known here"),
    "empty-ladder": ("[data]\n", "[compress]\nquantize = { ladder = [] }\n[data]\n", "the ladder is empty"),
    "rung-twice": ("[data]\n", '[compress]\nquantize = { ladder = ["ptq", "ptq"] }\n[data]\n', "a rung is repeated"),
    "nothing-expected": ("[data]\n", "[model.expected]\n[data]\n", "neither auc nor accuracy"),
    "expected-percent": ("[data]\n", "[model.expected]\nauc = 96.3\n[data]\n", "auc is between 0 and 1"),
    "foreign-positive": ('task = "multiclass"', 'task = "multiclass"\npositive = "c"', "is not one of the labels"),
    "negative-security-version": ('version = "1.0.0"', 'version = "1"\nsecurity_version = -1', "security_version must be between"),
    "security-version-that-locks-out": (
        'version = "1.0.0"',
        'version = "1"\nsecurity_version = 2147483648',
        "security_version must be between",
    ),
    "version-with-spaces": ('version = "1.0.0"', 'version = "1.0 beta"', "must be letters, digits"),
    "empty-version": ('version = "1.0.0"', 'version = ""', "must be letters, digits"),
}


@pytest.mark.parametrize(("old", "new", "message"), BAD_RECIPES.values(), ids=BAD_RECIPES)
def test_a_recipe_that_does_not_fit_is_refused(recipe, old, new, message):
    """Before anything is loaded, the author is told which key to change."""
    with pytest.raises(CatalogError, match=message):
        load_recipe(changed(recipe, old, new))


def test_an_unknown_target_names_the_nearest(recipe):
    """The hint of the catalogue, also for what the caller gives instead of the recipe's."""
    with pytest.raises(CatalogError) as caught:
        load_recipe(recipe, targets=["x86_64"])
    assert caught.value.hint.startswith("did you mean 'x86-64'?")


def test_an_unknown_calibration_names_the_nearest(recipe):
    """Also through a setting."""
    with pytest.raises(CatalogError) as caught:
        load_recipe(recipe, settings=["calibration.recipe=defalt"])
    assert caught.value.hint.startswith("did you mean 'default'?")


def test_targets_of_the_caller_replace_the_recipes(recipe):
    """An empty list leaves the recipe's."""
    changed(recipe, '["x86-64"]', '["no-such-device"]')
    assert load_recipe(recipe, targets=["x86-64"]).targets == ("x86-64",)


SCALARS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
PLAIN = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8
)
SHARE = st.floats(0, 1)


@st.composite
def recipes(draw):
    labels = tuple(draw(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=4, unique=True)))
    values = (127.5,) * 3
    return Recipe(
        name=draw(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)),
        version=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)),
        security_version=draw(st.integers(0, 2**31 - 1)),
        targets=tuple(draw(st.lists(st.text(), min_size=1, unique=True))),
        model=ModelSpec(
            source="timm:" + draw(st.text()),
            weights=draw(st.none() | st.text()),
            labels=labels,
            task=draw(st.sampled_from(["multiclass", "multilabel"])),
            expected=draw(st.none() | st.builds(Expected, split=st.sampled_from(["val", "test"]), auc=SHARE, tolerance=SHARE)),
            arguments=draw(st.dictionaries(st.text(), PLAIN, max_size=3)),
        ),
        input=InputSpec(color="grey", channels=3, resize=(64, 64), mean=values, std=values),
        data=DataSpec(manifest=draw(st.text()), columns=Columns(mask=draw(st.none() | st.just("m")))),
        calibration=CalibrationRef(recipe=draw(st.text())),
        compress=CompressSpec(quantize=QuantizeSpec(ladder=draw(st.sampled_from([("ptq",), ("float", "ptq-full")])))),
        accept=AcceptSpec(enforce=draw(st.booleans()), max_flips=draw(SHARE)),
    )


@settings(max_examples=50)
@given(recipes())
def test_a_recipe_survives_encoding(recipe):
    """The encoded recipe is JSON, which digests and reports rely on, and decodes to the same recipe."""
    encoded = json.loads(json.dumps(encode(recipe), allow_nan=False))
    assert decode(Recipe, encoded, where="recipe", error=CatalogError) == recipe


def test_every_network_of_a_recipe_has_its_paths_beside_the_recipe(recipe):
    """The student's and further teachers' weights are found as the model's are."""
    changed(
        recipe,
        "[data]\n",
        """[compress]
student = { source = "timm:resnet10t", weights = "student.safetensors" }
distill = { teachers = [{ source = "onnx:other.onnx" }, { source = "timm:resnet18", weights = "deep/third.safetensors" }] }
[data]
""",
    )
    found = load_recipe(recipe).compress
    assert found.student.weights == str(recipe.parent / "student.safetensors")
    assert [teacher.source for teacher in found.distill.teachers] == [f"onnx:{recipe.parent / 'other.onnx'}", "timm:resnet18"]
    assert found.distill.teachers[1].weights == str(recipe.parent / "deep" / "third.safetensors")


def test_a_new_network_is_told_from_the_models_own():
    """Quantization alone keeps the trained network; anything else may answer a few frames differently by right."""
    assert not CompressSpec().makes_new_network
    for part in ({"distill": {}}, {"student": {"source": "timm:x", "weights": "w"}}, {"prune": {"latency_target": 0.5}, "distill": {}}):
        assert decode(CompressSpec, part, where="test", error=CatalogError).makes_new_network


def test_foreign_sets_are_beside_the_recipe(tmp_path):
    """Paths of [gate] foreign are relative to the recipe's folder, as every other path."""
    from edgekit.catalog.recipe import _resolve_paths

    table = {"gate": {"foreign": ["sets/mri.csv", "/absolute.csv"]}}
    _resolve_paths(table, tmp_path)
    assert table["gate"]["foreign"] == [str(tmp_path / "sets" / "mri.csv"), "/absolute.csv"]


def test_a_gate_that_means_nothing_is_refused():
    """Quantile, counts and repeated sets."""
    from edgekit.catalog.gate import GateSpec

    for changes in (
        {"quantile": 1.0},
        {"quantile": 0.2},
        {"frozen_frames": 1},
        {"frozen_s": 0.0},
        {"foreign": ("a", "a")},
        {"foreign_frames": 0},
    ):
        with pytest.raises(ValueError, match=r"must be|twice"):
            GateSpec(**changes)
