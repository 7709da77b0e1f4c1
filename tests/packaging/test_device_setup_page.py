"""`docs/device-setup.md`, held to the code: commands, versions, checks and the three words for what is verified."""

from __future__ import annotations

import dataclasses
import re

import pytest
import repository
import typer.main

from edgekit.catalog.target import load_target
from edgekit.cli.main import app
from edgekit.profiler import cache_faults, verification
from edgekit.profiler.check import FAIL, NOT_RUN, PASS
from edgekit.runtime.engines import engine_cache
from edgekit.runtime.engines.cache_keys import DeviceKey

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
    [("PC", ["doctor", "build", "verify", "run"]), ("Jetson", ["doctor", "build", "verify", "run"])],
)
def test_each_way_ends_with_a_frame(title, wanted):
    """The commands of each way are there, in the order in which they can work; that they and their options exist is tested for every document."""
    assert commands(part(title)) == wanted
    assert set(wanted) <= set(COMMANDS)


def test_the_wheel_is_installed_with_extras_that_exist():
    """What is installed is a file, with extras of the distribution; on a Jetson TensorRT is never asked of PyPI."""
    named = re.findall(r"pip install \"\./\$\(ls edgekit_toolkit-\*\.whl\)\[([\w,]+)\]\"", PAGE)
    assert len(named) == PAGE.count("edgekit_toolkit-*.whl") == 3
    known = set(repository.pyproject()["project"]["optional-dependencies"])
    assert {extra for group in named for extra in group.split(",")} <= known
    assert all("tensorrt" not in line for line in PAGE.splitlines() if re.match(r"(?:sudo \S+/)?pip install", line))
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


PRODUCT = part("7. At the installation of a product")


def units():
    """The lines of each systemd unit of the page."""
    return [code.splitlines() for language, code in repository.fences(PRODUCT) if language == "ini"]


def value(unit, key):
    """The value of a key that a unit has once."""
    (line,) = [one for one in unit if one.startswith(f"{key}=")]
    return line.removeprefix(f"{key}=")


def shell():
    """What is typed for a product, as one text."""
    return "".join(code for language, code in repository.fences(PRODUCT) if language == "bash")


def test_build_and_application_share_user_groups_and_cache():
    """What decides whether the application may read what the build wrote, and may use the GPU, is the same in both units."""
    build, application = units()
    for key in ("User", "SupplementaryGroups", "Environment"):
        assert value(build, key) == value(application, key)
    assert value(build, "SupplementaryGroups") == "video render"
    assert value(build, "After") == "nvpmodel.service"


def test_the_commands_make_what_the_units_use():
    """User and groups, environment, bundle and cache of the units are made by the commands or by systemd, and verify looks where the service works."""
    build, _ = units()
    user, (program, command, bundle) = value(build, "User"), value(build, "ExecStart").split()
    environment = program.removesuffix("/bin/edgekit")
    cache = f"/var/lib/{value(build, 'StateDirectory')}"
    assert value(build, "Environment") == f"{engine_cache.ENVIRONMENT}={cache}"
    assert command in COMMANDS
    typed = shell().splitlines()
    assert f"sudo useradd --system --home-dir {bundle.rpartition('/')[0]} --shell /usr/sbin/nologin --groups video,render {user}" in typed
    assert f"sudo python3 -m venv --system-site-packages {environment}" in typed
    assert sum(line.startswith(f"sudo {environment}/bin/pip install ") for line in typed) == 2
    assert f"sudo install --mode=0644 lung.edgekit {bundle}" in typed
    assert f"sudo -u {user} {engine_cache.ENVIRONMENT}={cache} {program} verify {bundle} --full" in typed
    assert typed.index("sudo systemctl daemon-reload") < typed.index("sudo systemctl start edgekit-build.service")


def test_the_build_comes_first_and_restarts_nobody():
    """The application is ordered after the build and does not need it to succeed; nothing on the page restarts a scanner that is in use."""
    build, application = units()
    assert value(application, "After") == "edgekit-build.service"
    assert not [line for line in (*build, *application) if line.startswith(("Requires=", "Before=", "ExecStartPost=", "ExecStartPre="))]
    assert "try-restart" not in PAGE
    assert "systemctl restart" not in PAGE


def test_an_engine_is_not_kept_for_each_power_mode():
    """The page promises no more of power modes than the key holds: of these, the number of multiprocessors."""
    assert "multiprocessors" in {field.name for field in dataclasses.fields(DeviceKey)}
    assert not [field.name for field in dataclasses.fields(DeviceKey) if "mode" in field.name or "power" in field.name]
    assert "Engines that were built in another mode stay in use" in PRODUCT
    cache = f"/var/lib/{value(units()[0], 'StateDirectory')}"
    assert f"`sudo rm -r {cache}` and `sudo systemctl start edgekit-build.service`" in PRODUCT


def test_no_extra_asks_pypi_for_tensorrt():
    """TensorRT comes with JetPack: no extra of the distribution names PyPI's package of that name."""
    extras = repository.pyproject()["project"]["optional-dependencies"]
    assert not [wanted for group in extras.values() for wanted in group if re.match(r"tensorrt\b", wanted)]
