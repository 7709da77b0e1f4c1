"""`edgekit targets`: the devices this edgekit knows."""

from __future__ import annotations

import typer

from edgekit.cli.console import say, table


def targets(name: str | None = typer.Argument(None, metavar="NAME", help="Show one target in full.")) -> None:
    """List the targets, or show one."""
    from edgekit.catalog import files
    from edgekit.catalog.target import load_target

    if name is None:
        found = [load_target(item) for item in files.names("targets")]
        say(table([(target.name, ", ".join(engine.name for engine in target.engines), target.title) for target in found], header=("target", "engines", "title"), words=3))
        return
    target = load_target(name)
    say(f"{target.name}: {target.title}")
    say(f"  architectures  {', '.join(target.architectures)}")
    for engine in target.engines:
        say(f"  engine         {engine.name}")
        for key, value in engine.settings.items():
            say(f"  setting        {key} = {value}")
    for fact in target.facts:
        say(f"  {fact.statement}")
        say(f"      source: {fact.source}")
