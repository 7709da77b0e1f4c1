"""The documents say what is so: links lead somewhere, commands and options exist, code can be read."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath

import pytest
import repository
import tomllib
import typer.main

from edgekit.cli.main import app

DOCUMENTS = repository.documents()
COMMANDS = typer.main.get_command(app).commands
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (repository.ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
SHELL = {"", "sh", "bash", "shell", "console"}


def _anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ +(.*?) *#*$", repository.prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _links(text: str) -> list[str]:
    """Where the links and pictures of a page lead, those to other sites apart."""
    text = re.sub(r"`[^`\n]*`", "", repository.prose(text))
    found = re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", text)
    found += re.findall(r"^\[[^\]]+\]:\s+(\S+)", text, re.MULTILINE)
    found += re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    return [link for link in found if not re.match(r"[a-z][a-z0-9+.-]*:", link)]


def _shell_lines(text: str) -> list[str]:
    """The commands of a page: lines of shell blocks, in a transcript those after the prompt, and code in the running text."""
    lines = []
    for language, code in repository.fences(text):
        if language in SHELL:
            whole = re.sub(r"\\\n\s*", " ", code).splitlines()
            prompted = [line.strip()[2:] for line in whole if line.strip().startswith("$ ")]
            lines += prompted or ([] if language == "console" else [line.strip() for line in whole])
    lines += [span.replace("\n", " ") for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", repository.prose(text))]
    return [part.strip() for line in lines for part in re.split(r" \| |&&|;", line)]


def _calls(text: str, program: str) -> list[list[str]]:
    """The arguments of every call of a program on a page, brackets of optional ones taken off, comments and ellipses left out."""
    calls = []
    for line in _shell_lines(text):
        found = re.match(rf"(?:[A-Z_0-9]+=\S*\s+)*(?:[\w./~-]*/)?{program}(?:\s+(.*))?$", line)
        if found:
            bare = re.sub(r"(?<!\w)\[|\](?!\w)|…|\.\.\.", " ", found[1] or "")
            try:
                calls.append(shlex.split(bare, comments=True))
            except ValueError:
                pytest.fail(f"not a shell command: {line}")
    return calls


def _faults(arguments: list[str]) -> list[str]:
    """What in a call of `edgekit` does not exist."""
    if not arguments or arguments[0].startswith("-"):
        return [option for option in arguments if option not in {"--help", "-h", "--version"}]
    if arguments[0] not in COMMANDS:
        return [f"no command {arguments[0]}"]
    known = {option for parameter in COMMANDS[arguments[0]].params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help",
        "-h",
    }
    given = [argument.partition("=")[0] for argument in arguments[1:] if re.match(r"--?[a-zA-Z]", argument)]
    return [f"{arguments[0]} has no {option}" for option in given if option not in known]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    """Every relative link of a document names a file or folder of the repository, and its anchor a heading of that page."""
    known = set(repository.files())
    known |= {str(folder) for file in known for folder in PurePosixPath(file).parents}
    lost = []
    for link in _links(DOCUMENTS[name]):
        path, _, anchor = link.partition("#")
        target = name if not path else _normal(PurePosixPath(name).parent / path)
        if target not in known or (anchor and target.endswith(".md") and anchor not in _anchors(DOCUMENTS[target])):
            lost.append(link)
    assert not lost


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts) or "."


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_exist(name):
    """Every `edgekit …` in a document is a command of the command line with options that it has."""
    assert not [fault for arguments in _calls(DOCUMENTS[name], "edgekit") for fault in _faults(arguments)]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_exist(name):
    """Every `make …` in a document is a target of the Makefile."""
    calls = _calls(DOCUMENTS[name], "make")
    assert not [word for call in calls for word in call if "=" not in word and not word.startswith("-") and word not in TARGETS]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_code_can_be_read(name):
    """Every Python block of a document compiles and every TOML block parses."""
    for language, code in repository.fences(DOCUMENTS[name]):
        if language in {"python", "py"}:
            lines = code.splitlines()
            prompted = [line[4:] for line in lines if line.startswith((">>> ", "... "))]
            compile("\n".join(prompted or lines), name, "exec")
        elif language == "toml":
            tomllib.loads(code)


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("```bash\nedgekit compile recipe.toml --out x --json\n```", []),
        ("```sh\nedgekit compile recipe.toml \\\n    --otu x\n```", ["compile has no --otu"]),
        ("```console\n$ edgekit --version\nedgekit 0.1.0\n```", []),
        ("```console\n$ edgekit launch it\n```", ["no command launch"]),
        ("```\nedgekit run BUNDLE INPUT… [--overlay DIR] [--json]  # comment --x\n```", []),
        ("```\nedgekit run BUNDLE [--heat DIR]\n```", ["run has no --heat"]),
        ("```bash\nOMP_NUM_THREADS=1 .venv/bin/edgekit targets --all | head\n```", ["targets has no --all"]),
        ("With `edgekit inspect --deep` one sees more.", ["inspect has no --deep"]),
        ("`EDGEKIT_REAL_DATA=/data/edgekit make test`", []),
        ("```python\nedgekit launch\n```", []),
    ],
)
def test_a_wrong_command_would_be_found(text, faults):
    """The reader of commands sees blocks, transcripts, usage lines and running text, and only those."""
    assert [fault for arguments in _calls(text, "edgekit") for fault in _faults(arguments)] == faults


def test_a_lost_link_would_be_found():
    """The reader of links sees relative links, pictures and references, and not code or other sites."""
    text = '[a](b.md#c) ![d](e.png "f") <img src="g.svg"> [h](https://i.org) `[j](k)`\n[l]: m.md\n```\n[n](o)\n```'
    assert _links(text) == ["b.md#c", "e.png", "m.md", "g.svg"]
    assert _anchors("# Set-up, in short\n## `x` and y") == {"set-up-in-short", "x-and-y"}
