"""`edgekit demo`: the whole job on the built-in synthetic data."""

from __future__ import annotations

from pathlib import Path

import typer

from edgekit.cli.console import TerminalProgress, say, tell

DEMO_FRAMES = 2
"""Test frames of each class that are shown."""

_NOTICE = "The data is SYNTHETIC: computed speckle in the shape of lung ultrasound. The demonstration shows how edgekit works and says nothing about lungs."


def demo(out: Path = typer.Option(Path("demo"), "--out", help="Folder for the data, the teacher, the bundle and the reports.")) -> None:
    """Train a small teacher on synthetic frames, compile it, run it, explain it and profile it."""
    from edgekit.bundle.writer import check_writable, write_atomically
    from edgekit.cli.compile import print_result
    from edgekit.cli.profile import print_profile
    from edgekit.cli.run import run
    from edgekit.compiler.demo import prepare_demo
    from edgekit.compiler.pipeline import compile_recipe
    from edgekit.errors import AcceptanceError
    from edgekit.evaluation.dataset import load_manifest
    from edgekit.imaging import phantom
    from edgekit.imaging.phantom_scanner import PhantomSpec
    from edgekit.profiler import profile as profiling
    from edgekit.report import profile_page

    check_writable(out / "profile.html")
    tell(_NOTICE)
    progress = TerminalProgress()
    recipe = prepare_demo(out, progress)
    result = compile_recipe(recipe, out=out / "phantom-lung.edgekit", workdir=out / ".edgekit", progress=progress)[0]
    print_result(result)
    if result.bundle is None:
        raise AcceptanceError("the demonstration's model was refused by the acceptance gate", hint=f"{result.outputs.report_html} says why")
    test = load_manifest(Path(recipe.data.manifest), recipe.data.columns, recipe.model.output).split("test")
    shown = [sample.path for label in recipe.model.labels for sample in [item for item in test if item.labels == (label,)][:DEMO_FRAMES]]
    say()
    run(result.bundle, shown, overlay=out / "overlays", as_json=False)
    say()
    spec = PhantomSpec(rows=480, columns=640)
    frames = [phantom.frame(label, patient=0, index=0, seed=0, spec=spec) for label in phantom.LABELS]
    found = profiling.profile(result.bundle, frames, options=profiling.Options(seconds=5.0)).to_json()
    print_profile(found)
    write_atomically(out / "profile.html", [profile_page.render(found).encode()])
    say()
    say("Look at:")
    say(f"  {result.outputs.report_html}   what was proven, against what")
    say(f"  {out / 'overlays'}   where the evidence is, computed inside the quantized model")
    say(f"  {out / 'profile.html'}   what it costs on this machine")
    say(_NOTICE)
