"""`docs/recipes.md`, `docs/adding-a-target.md`, `docs/devices.md` and the indexes list what there is: every key with its default, every decision, every model."""

from __future__ import annotations

import dataclasses
import re

import pytest
import repository

from edgekit.catalog import compress, files, recipe
from edgekit.catalog.calibration import Calibration, load_calibration
from edgekit.catalog.explain import ExplainSpec
from edgekit.catalog.gate import GateSpec
from edgekit.catalog.target import EngineChoice, JetPack, Jetson, Target, TensorRt, load_target
from edgekit.cli.main import COMMANDS
from edgekit.compiler.load import SOURCES
from edgekit.compiler.quantize.rungs import RUNGS
from edgekit.runtime.engines import onnxruntime, openvino
from edgekit.schema.accept import AcceptSpec
from edgekit.schema.data import Columns
from edgekit.schema.model_io import InputSpec

DOCS = repository.ROOT / "docs"
RECIPES = (DOCS / "recipes.md").read_text("utf-8")
TARGETS_PAGE = (DOCS / "adding-a-target.md").read_text("utf-8")
README = (repository.ROOT / "README.md").read_text("utf-8")

# Parts of a recipe that are tables of their own: described by their own class, not by a row.
SECTIONS = {"model", "input", "data", "calibration", "compress", "explain", "gate", "accept"}

# The class, and the text before its table.
TABLES = {
    "top": (recipe.Recipe, "## Top"),
    "model": (recipe.ModelSpec, "## `[model]`"),
    "expected": (recipe.Expected, "\n`expected`:"),
    "input": (InputSpec, "## `[input]`"),
    "data": (recipe.DataSpec, "## `[data]`"),
    "columns": (Columns, "\n`columns`:"),
    "calibration": (recipe.CalibrationRef, "## `[calibration]`"),
    "calibration file": (Calibration, "A file in `calibration/` has these keys:"),
    "compress": (compress.CompressSpec, "## `[compress]`"),
    "student": (compress.NetworkSpec, "\n`student`, and each of `distill`'s `teachers`:"),
    "prune": (compress.PruneSpec, "\n`prune`:"),
    "distill": (compress.DistillSpec, "\n`distill`:"),
    "augment": (compress.AugmentSpec, "\n`augment`:"),
    "quantize": (compress.QuantizeSpec, "\n`quantize`:"),
    "qat": (compress.QatSpec, "\n`qat`:"),
    "study": (compress.StudySpec, "\n`study`:"),
    "explain": (ExplainSpec, "## `[explain]`"),
    "gate": (GateSpec, "## `[gate]`"),
    "accept": (AcceptSpec, "## `[accept]`"),
}


def rows(page: str, before: str) -> list[list[str]]:
    """The cells of the first table after a text, without its header."""
    assert page.count(before) == 1, before
    table = re.search(r"(?:^\|.*\n)+", page.split(before)[1], re.MULTILINE)[0]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()[2:]]


@pytest.mark.parametrize("name", TABLES)
def test_every_key_of_a_recipe(name):
    """A table of the page has the keys of the class, in its order, and no other."""
    kind, before = TABLES[name]
    expected = [field.name for field in dataclasses.fields(kind)]
    expected = [key for key in expected if not (name == "top" and key in SECTIONS) and not (kind is Calibration and key == "name")]
    found = [key for row in rows(RECIPES, before) for key in re.findall(r"`(\w+)`", row[0])]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("name", [name for name in TABLES if name != "calibration file"])
def test_every_default_of_a_recipe(name):
    """A key that may be left out says its default, a key that may not says none."""
    kind, before = TABLES[name]
    cells = {key: row[2].strip("`") for row in rows(RECIPES, before) for key in re.findall(r"`(\w+)`", row[0])}
    for field in dataclasses.fields(kind):
        if field.name not in cells or field.default_factory is not dataclasses.MISSING:
            continue
        if field.default is dataclasses.MISSING:
            assert cells[field.name] == "", field.name
        elif field.default is None:
            assert cells[field.name] == "none", field.name
        elif isinstance(field.default, tuple):
            assert cells[field.name] == str(list(field.default)).replace("'", '"'), field.name
        else:
            default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default).lower()
            assert cells[field.name] == default, field.name


def test_the_whole_recipe_on_the_page(tmp_path):
    """The example is a recipe that edgekit reads, with every section."""
    (code,) = [code for language, code in repository.fences(RECIPES) if language == "toml"]
    path = tmp_path / "recipe.toml"
    path.write_text(code)
    assert recipe.load_recipe(path).name == "breast-us-lite0"
    assert set(re.findall(r"^\[(\w+)\]", code, re.MULTILINE)) == SECTIONS


@pytest.mark.parametrize(("row", "known"), [("| `arguments` |", SOURCES), ("| `ladder` |", RUNGS)], ids=["sources", "rungs"])
def test_every_source_and_rung(row, known):
    """The table behind the one with this row has the names of the code's table, in its order."""
    table = RECIPES.partition(row)[2].partition("\n\n")[2].partition("\n\n")[0]
    assert [re.match(r"\| `([\w-]+)", line)[1] for line in table.splitlines()[2:]] == list(known)


def test_the_default_calibration_on_the_pages():
    """The numbers that the page on data manifests gives are those of calibration/default.toml."""
    default = load_calibration("default")
    page = (DOCS / "data-manifests.md").read_text("utf-8")
    assert f"up to {default.samples} frames" in page
    assert f"`minimum` ({default.minimum} in `default`)" in page


# The class, and the text before its table. A fact's two keys are in the example, which is read.
TARGET_TABLES = {
    "target": (Target, "`edgekit profile BUNDLE` measures."),
    "engine": (EngineChoice, "An entry of `engines`:"),
    "jetson": (Jetson, "\n`[jetson]`:"),
    "jetpack": (JetPack, "An entry of `jetpacks`, each value a version in text:"),
    "tensorrt": (TensorRt, "\n`[tensorrt]`:"),
}


@pytest.mark.parametrize("name", TARGET_TABLES)
def test_every_key_of_a_target(name):
    """A table of the page on targets has the keys of the class, in its order, and no other."""
    kind, before = TARGET_TABLES[name]
    found = [key for row in rows(TARGETS_PAGE, before) for key in re.findall(r"^`(\w+)`$", row[0])]
    assert found == [field.name for field in dataclasses.fields(kind) if not (kind is Target and field.name == "name")]


def test_the_target_on_the_page(tmp_path, monkeypatch):
    """The example is a profile that edgekit reads, with a fact and its source."""
    (code,) = [code for language, code in repository.fences(TARGETS_PAGE) if language == "toml"]
    (tmp_path / "scanner.toml").write_text(code)
    monkeypatch.setattr(files, "folder", lambda _: tmp_path)
    target = load_target("scanner")
    assert target.engine.settings["INFERENCE_NUM_THREADS"] == "2"
    assert [fact.source for fact in target.facts] == ["System specification of the scanner, section 4.2"]


def settings_of(page: str, mark: str) -> set[str]:
    """The settings that the one line of a page with this mark names."""
    (line,) = [line for line in page.split("\n- ") if mark in line]
    return set(re.findall(r"`([A-Z_]+)`", line))


def test_every_setting_of_openvino():
    """The page on targets names the settings that a bundle may choose, and no other."""
    assert settings_of(TARGETS_PAGE, "A bundle may choose") == openvino._SETTINGS


def test_every_setting_of_onnxruntime():
    """The page on targets names the settings that a bundle may choose, and no other."""
    assert settings_of(TARGETS_PAGE, "For ONNX Runtime it may choose") == set(onnxruntime.SETTINGS)


def test_the_page_on_devices():
    """Its two tables have every profile once, by name, with what the profile says."""
    page = (DOCS / "devices.md").read_text("utf-8")
    targets = [load_target(name) for name in files.names("targets")]
    assert rows(page, "## CPUs") == [cpu_row(target) for target in targets if target.jetson is None]
    assert rows(page, "each with its own artefact: ") == [module_row(target) for target in targets if target.jetson is not None]


def cpu_row(target: Target) -> list[str]:
    """A row of the table of CPUs."""
    return [
        f"`{target.name}`",
        target.title,
        " or ".join(f"`{name}`" for name in target.instruction_sets),
        "half their range" if target.int8_saturates else "all their range",
        str(target.channel_multiple),
        ", ".join(f"`{engine.name}`" for engine in target.engines),
    ]


def module_row(target: Target) -> list[str]:
    """A row of the table of Jetson modules."""
    jetson, tensorrt = target.jetson, target.tensorrt
    return [
        f"`{target.name}`",
        ", ".join(jetson.part_numbers),
        f"{jetson.multiprocessors} × {jetson.compute_capability}",
        f"{jetson.memory_mib // 1024} GB",
        str(jetson.dla_cores or ""),
        "yes" if jetson.sparsity_2_4 else "",
        ", ".join(dict.fromkeys(jetpack.version for jetpack in jetson.jetpacks)),
        ", ".join(tensorrt.versions),
        f"opset {tensorrt.opset}" + (", strongly typed" if tensorrt.strongly_typed else ""),
    ]


def test_the_gates_defaults_on_the_page():
    """The page on figures states the defaults of the gates."""
    page = (DOCS / "evaluation.md").read_text("utf-8")
    found = {re.search(r"`(\w+)`", row[1])[1]: row[2] for row in rows(page, "A gate that cannot be computed fails.")}
    default = AcceptSpec()
    expected = {field.name: getattr(default, field.name) for field in dataclasses.fields(AcceptSpec)}
    expected["max_flips"] = default.flips_allowed(False)
    for key in ("enforce", "require_demonstrated", "subgroup_minimum", "threshold_split", "waive_cam"):
        del expected[key]
    assert found == {key: "none" if value is None else f"{value:g}" for key, value in expected.items()}


def test_every_model_has_a_card():
    """Beside each recipe of `models/` stands its card, and no card stands alone."""
    folder = repository.ROOT / "models"
    assert {path.stem for path in folder.glob("*.md")} - {"README"} == {path.stem for path in folder.glob("*.toml")}


def test_every_decision_is_listed():
    """The index of decisions has each page once, in order, under the title of the page."""
    index = (DOCS / "adr" / "README.md").read_text("utf-8")
    pages = sorted(path for path in (DOCS / "adr").glob("[0-9]*.md"))
    titles = [path.read_text("utf-8").splitlines()[0].removeprefix(f"# {path.name[:4]}: ") for path in pages]
    expected = [f"| [{path.name[:4]}]({path.name}) | {title} |" for path, title in zip(pages, titles, strict=True)]
    assert [line for line in index.splitlines() if line.startswith("| [")] == expected


def test_the_readme_names_every_command_and_package():
    """The README has a word on each command, and its map on each package."""
    commands = README.partition("| command |")[2].partition("\n\n")[0]
    assert not [name for name in COMMANDS if f"`{name}`" not in commands]
    code_map = README.partition("| path |")[2].partition("\n\n")[0]
    packages = [name for name in repository.packages() if name != "errors"]
    assert not [name for name in packages if f"{name}/`" not in code_map]
