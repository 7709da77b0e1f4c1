"""The README's short table: a few figures of each benchmark, of which `docs/measurements.md` has all. Used by `readme_table.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from readme_words import Result, goals, measured, table

Row = tuple[str, Callable[[Result], str]]


def ratios(key: str) -> Callable[[Result], str]:
    """A ratio of every architecture."""

    def said(result: Result) -> str:
        found = {name: item[key] for name, item in result["architectures"].items() if key in item}
        return ", ".join(
            f"{name} {item['ratio']:.2f}×{'' if item.get('steady', True) else ' (not steady)'}" for name, item in found.items()
        )

    return said


def changed(result: Result) -> str:
    """Answers that differ from FP32's, of what the gate accepted and what it refused."""
    said = [
        f"{name} {item['flips']} of {item['frames']}{'' if item['accepted'] else ' (refused)'}" for name, item in result["cases"].items()
    ]
    return ", ".join(said)


def maps(result: Result) -> str:
    """How like the device's maps are to FP32's."""
    found = {name: (item["maps"]["fidelity"], item["failed_gates"]) for name, item in result["cases"].items()}
    return ", ".join(
        f"{name} {item['pearson_median']['value']:.3f} / {item['pearson_p5']['value']:.3f}{' (refused)' if refused else ''}"
        for name, (item, refused) in found.items()
    )


def start(result: Result) -> str:
    """A cold start, with caches and without."""
    said = []
    for name, words in (("with_cache", "model compiled ahead"), ("without_cache", "compiled at the start")):
        time, memory = result[name]["ms"], result[name]["peak_mib"]
        said.append(f"{words}: {time['edgekit']:.0f} ms, {time['ratio']:.2f}× as long and {memory['ratio']:.2f}× the memory")
    return "; ".join(said)


def current(part: str) -> Callable[[Result], str]:
    """How old the results of a live stream are."""

    def said(result: Result) -> str:
        found = result[part]
        return f"{found['age_ms']['p99']:.0f} ms of {found['age_limit_ms']:.0f} ms allowed; {goals(found['verdicts'])}"

    return said


def back(result: Result) -> str:
    """How soon an answer is back."""
    return ", ".join(
        f"{kind} {max(item['back_after_s'], default=0.0):.2f} s of {len(item['back_after_s'])} times; {goals(item['verdicts'])}"
        for kind, item in result["faults"].items()
    )


def throughput(result: Result) -> str:
    """A folder of files against inference alone."""
    return ", ".join(f"{name} {item['ratio']:.2f}×" for name, item in result["architectures"].items())


def honesty(result: Result) -> str:
    """Whether the profiler tells the truth."""
    same, planted = result["same"], result["planted"]
    missed = sum(word == "MISSED" for word in result["goals"].values())
    return (
        f"{same['slower_or_faster'][0]:.0%} of {same['trials']} false alarms, {same['words']['not judged']} not judged; "
        f"{planted['slower'][0]:.0%} of {planted['trials']} found, {planted['words']['not judged']} not judged; {missed} of {len(result['goals'])} goals missed"
    )


ROWS: Mapping[str, tuple[Row, ...]] = {
    "speed": (
        ("PyTorch eager FP32 ÷ INT8 with its map, same cores", ratios("eager_over_int8")),
        ("`predict` (resize, gate, map, answer) ÷ bare OpenVINO inference of the same INT8 without a map", ratios("predict_over_bare")),
    ),
    "throughput": (
        ("frames a second from a folder of PNG files ÷ OpenVINO's `benchmark_app`, which reads nothing: higher is better", throughput),
    ),
    "explanations": (("INT8 graph with its map ÷ without", ratios("map_over_plain")),),
    "compression": (("answers on `test` that differ from the trained teacher's, which a student may know better", changed),),
    "fidelity": (("maps after quantization, Pearson to FP32's, median / 5th percentile", maps),),
    "cold_start": (("first answer of a fresh process, against the shortest OpenVINO script", start),),
    "stream-alone": (("a live stream of 60 frames a second, frame age p99", current("alone")),),
    "stream-loaded": (("the same beside other work on every core; allowed is its deadline", current("loaded")),),
    "stream-faults": (("the engine's process is lost: answers are back after at most", back),),
    "profiler": (("`profile --compare`: a bundle with itself, and slowed by a tenth", honesty),),
}
"""Result to its rows: what is said, and how it is read."""


def rows(name: str, result: Result) -> list[tuple[str, str, str]]:
    """The rows of one result."""
    return [(words, read(result), measured(result)) for words, read in ROWS[name]]


def digest(made: list[tuple[str, str, str]]) -> str:
    """The short table."""
    return table(("what", "figure", "where"), made)
