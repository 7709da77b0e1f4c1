"""`edgekit verify`: are the bytes whole, and does this machine answer as the one the bundle was proven on?"""

from __future__ import annotations

from pathlib import Path

import typer

from edgekit.cli.console import print_json, say
from edgekit.errors import TargetError


def verify(
    bundle: Path = typer.Argument(metavar="BUNDLE", help="A bundle (.edgekit)."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document on stdout."),
) -> None:
    """Check a bundle's digests and run its golden frames on every engine."""
    from edgekit.bundle.reader import open_bundle
    from edgekit.runtime import selftest
    from edgekit.schema.decode import encode

    opened = open_bundle(bundle)
    checks = selftest.run(opened)
    if as_json:
        print_json(
            {
                "bundle": str(bundle),
                "digest": opened.digest,
                "digests": "PASS",
                "members": len(opened.manifest.members),
                "accepted": opened.manifest.accepted,
                "engines": [encode(check) for check in checks],
            }
        )
    else:
        say(f"PASS  digests: {len(opened.manifest.members)} members are what the manifest lists")
        for check in checks:
            shown = (
                ""
                if check.max_difference is None
                else f", largest difference {check.max_difference:.3g} logit units of {check.tolerance:.3g} allowed"
            )
            say(f"{check.status}  {check.engine}: {check.frames} golden frames{shown}{'; ' + check.reason if check.reason else ''}")
    if any(check.status != "PASS" for check in checks):
        raise TargetError(f"{bundle} is whole, but not every engine of it passes here", hint="edgekit doctor shows what this machine has")
