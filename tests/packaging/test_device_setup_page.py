"""`docs/device-setup.md`, held to the code: commands, versions, checks and the three words for what is verified."""

from __future__ import annotations

import re

import pytest
import repository
import typer.main

from edgekit.catalog.target import load_target
from edgekit.cli.main import app
from edgekit.profiler import cache_faults, verification
from edgekit.profiler.check import FAIL, NOT_RUN, PASS
from edgekit.runtime.engines import engine_cache

PAGE = (repository.ROOT / "docs" / "device-setup.md").read_text("utf-8")
COMMANDS = typer.main.get_command(app).commands
WORDS = ("conformance-checked", "numerics-checked", "device-verified on …")
# What a reader could take for evidence from a device.
CLAIMS = r"\b(?:certified|validated|qualified|jetson-tested|device-tested|field-tested|proven) on\b|\btested on (?:a|the|an) (?:Jetson|Orin|Xavier|Thor|device)"


def part(title):
    """The text under a heading, up to the next of its rank."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^\1 |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[2]


def commands(text):
    """The names of edgekit's commands in the shell blocks, in order."""
    lines = [line for language, code in repository.fences(text) if language == "bash" for line in code.splitlines()]
    return [line.split()[1] for line in lines if line.startswith("edgekit ")]


def rows(text):
    """The rows of the tables in a text, without the head and the line below it."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [row for index, row in enumerate(found) if not set("".join(row)) <= set("-") and index > 0]


@pytest.mark.parametrize(
    ("title", "wanted"),
    [("PC", ["doctor", "verify", "run"]), ("Jetson", ["doctor", "build", "verify", "run"])],
)
def test_each_way_ends_with_a_frame(title, wanted):
    """The commands of each way are there, in the order in which they can work; that they and their options exist is tested for every document."""
    assert commands(part(title)) == wanted
    assert set(wanted) <= set(COMMANDS)


def test_the_wheel_is_installed_with_extras_that_exist():
    """What is installed is a file, with extras of the distribution; on a Jetson TensorRT is never asked of PyPI."""
    named = re.findall(r"pip install \"\./\$\(ls edgekit_toolkit-\*\.whl\)\[([\w,]+)\]\"", PAGE)
    assert len(named) == PAGE.count("edgekit_toolkit-*.whl") == 2
    known = set(repository.pyproject()["project"]["optional-dependencies"])
    assert {extra for group in named for extra in group.split(",")} <= known
    assert all("tensorrt" not in line for line in PAGE.splitlines() if line.startswith("pip install"))
    assert "--system-site-packages" in part("Jetson")


@pytest.mark.parametrize(("column", "version"), [(1, "6.2"), (2, "7.2")])
def test_versions_are_those_of_the_profiles(column, version):
    """The table of JetPacks says what the profile of the Orin Nano says, and cuda-python's version follows CUDA's."""
    table = rows(part("Jetson"))[:5]
    release = next(one for one in load_target("jetson-orin-nano-8gb").jetson.jetpacks if one.version == version)
    assert f"JetPack {version}" in PAGE.splitlines()[PAGE.splitlines().index("## Jetson") + 2]
    found = {row[0]: row[column] for row in table}
    assert {name: found[name] for name in ("Linux for Tegra", "Python", "CUDA")} == {
        "Linux for Tegra": release.l4t,
        "Python": release.python,
        "CUDA": release.cuda,
    }
    assert f"{found['TensorRT']}.".startswith(f"{release.tensorrt}.")
    assert found["cuda-python"] == f"`cuda-python=={release.cuda}.*`"


def test_checks_are_those_that_verify_makes():
    """Every check of the report is in the table, and no other."""
    listed = [row[0].strip("`") for row in rows(part("What verify reports"))]
    engines = [
        verification.golden("ENGINE"),
        "golden-maps ENGINE",
        "golden-residual ENGINE",
        "golden-labels ENGINE",
        "cached-engine ENGINE",
    ]
    measured = [f"{name} ENGINE" for name in ("int8-share", "reformats", "latency-ms")]
    faults = [f"{name} ENGINE" for name in cache_faults.NAMES]
    assert listed == ["digests", *engines, *measured, *faults, "answering-engine", "fallback-engine"]
    assert all(f"`{status}`" in PAGE for status in (PASS, FAIL, NOT_RUN))
    assert f"at least {verification.FEWEST_SAMPLES} frames" in PAGE


def test_three_words_and_no_others():
    """The table has the three words; every use of one is one of them, in this page and in the README; nothing else claims evidence of a device."""
    assert [row[0].strip("*") for row in rows(part("What is verified where"))[:3]] == list(WORDS)
    stems = {word.split()[0] for word in WORDS}
    readme = (repository.ROOT / "README.md").read_text("utf-8")
    for text in (PAGE, readme):
        assert set(re.findall(r"(?<![-\w])[a-z]+-(?:checked|verified)\b(?!-)", text)) <= stems
        assert not re.findall(CLAIMS, text, re.IGNORECASE)


def test_the_list_of_devices_is_empty_and_says_so():
    """No device is listed as verified, and the page says that."""
    listed = part("What is verified where").partition("Device-verified on:")[2]
    assert rows(listed) == []
    assert "The list is empty today." in listed
    assert "No Jetson has run these steps yet." in PAGE


def units():
    """The lines of each systemd unit of the page."""
    return [code.splitlines() for language, code in repository.fences(PAGE) if language == "ini"]


def test_build_and_application_share_user_groups_and_cache():
    """What decides whether the application may read what the build wrote, and may use the GPU, is the same in both units."""
    build, application = units()
    for key in ("User=", "SupplementaryGroups=", f"Environment={engine_cache.ENVIRONMENT}="):
        (line,) = [one for one in application if one.startswith(key)]
        assert line in build
    assert "SupplementaryGroups=video render" in build
    assert "After=nvpmodel.service" in build


def test_the_build_holds_no_application_up():
    """The unit does not order itself before the application: the fallback answers meanwhile, and the page says how the new engine is taken."""
    build, _ = units()
    assert not [line for line in build if line.startswith("Before=")]
    assert "try-restart" in PAGE
    assert "`--again`" in (repository.ROOT / "docs/engine-cache.md").read_text("utf-8")


def test_no_extra_asks_pypi_for_tensorrt():
    """TensorRT comes with JetPack: no extra of the distribution names PyPI's package of that name."""
    extras = repository.pyproject()["project"]["optional-dependencies"]
    assert not [wanted for group in extras.values() for wanted in group if re.match(r"tensorrt\b", wanted)]
