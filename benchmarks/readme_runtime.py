"""The tables about the device: speed, throughput, starts, streams, the profiler, the input gate. Used by `readme_table.py`."""

from __future__ import annotations

from readme_words import Result, goals, interval, measured, ratio, table


def speed(result: Result) -> str:
    """Ratios of medians, interleaved."""
    columns = {
        "eager_over_int8": "PyTorch eager FP32 ÷ INT8 here",
        "predict_over_bare": "`predict` ÷ bare OpenVINO without map and preprocessing",
        "overlay_over_bare": "with overlay",
        "preprocess_over_bare": "preprocessing alone",
        "infer_over_bare": "inference with map alone",
        "map_over_plain": "graph with map ÷ without",
    }
    rows = [
        (name, f"{item['predict_over_bare']['a_median_ms']:.1f} ms", *(ratio(item[key]) for key in columns))
        for name, item in result["architectures"].items()
    ]
    rows_px, columns_px = result["frame"]
    text = f"**Speed**, ratios of medians with 95 % intervals, interleaved, frame of {rows_px} × {columns_px}, {measured(result)}:"
    return f"{text}\n\n{table(('model', '`predict`, median', *columns.values()), rows)}"


def throughput(result: Result) -> str:
    """A folder on all cores."""
    rows = []
    for name, item in result["architectures"].items():
        rates, stages = item["frames_per_second"], item["stages_ms"]
        rows.append(
            (
                name,
                f"{rates['edgekit']:.0f}",
                f"{rates['throughput']:.0f} / {rates['latency']:.0f}",
                f"{item['ratio']:.2f} ({item['low']:.2f}–{item['high']:.2f})",
                " / ".join(f"{stages[stage]:.1f}" for stage in ("read", "preprocess", "infer", "predict"))
                + (", not settled" if stages["infer"] > stages["predict"] else ""),
            )
        )
    header = (
        *(
            "model",
            "edgekit, frames a second",
            "`benchmark_app`, throughput / latency mode",
            "ratio to the faster (least–most of the blocks)",
        ),
        "one worker, ms: read / preprocess / infer / predict",
    )
    text = f"**Throughput** over {result['files']} PNG files, read, decoded, preprocessed, inferred and explained by {result['jobs']} jobs, {measured(result)}:"
    return f"{text}\n\n{table(header, rows)}"


def cold_start(result: Result) -> str:
    """From a fresh process to the first answer."""
    said = []
    for name, words in (
        ("without_cache", "without a model cache"),
        ("with_cache", "with the model compiled ahead, and OpenVINO's CACHE_DIR for the bare script"),
    ):
        time, memory = result[name]["ms"], result[name]["peak_mib"]
        said.append(
            f"{words}, {time['edgekit']:.0f} ms against {time['bare']:.0f} ms: {time['ratio']:.2f}× ({time['low']:.2f}–{time['high']:.2f}), "
            f"and a peak of {memory['edgekit']:.0f} MiB against {memory['bare']:.0f} MiB: {memory['ratio']:.2f}×"
        )
    return (
        f"**Cold start** of `{result['bundle']}`, from a fresh process to the first answer, against the shortest OpenVINO script for the same model: "
        f"{'; '.join(said)}; median of {result['runs']}, {measured(result)}."
    )


def stream_alone(result: Result) -> str:
    """A live stream for minutes."""
    alone = result["alone"]
    counted = alone["counted"]
    return (
        f"**A live stream** of {result['fps']:.0f} frames a second for {result['minutes']:g} minutes, a model that takes {result['infer_ms']:.0f} ms, watched in a process of its own: frame age p99 "
        f"{alone['age_ms']['p99']:.1f} ms where {alone['age_limit_ms']:.1f} ms are allowed (two frame times and the inference); {counted['captured']} frames captured, {alone['processed']} answered, "
        f"{counted['dropped']} dropped, counted at both ends; own memory grew by {alone['growth_mib']:.2f} MiB; {goals(alone['verdicts'])}, {measured(result)}."
    )


def stream_loaded(result: Result) -> str:
    """The same beside other work."""
    loaded, alone = result["loaded"], result["alone"]
    counted, steps = loaded["counted"], loaded["share_of_results_on_step"]
    share = ", ".join(f"{step} {part:.0%}" for step, part in steps.items())
    return (
        f"**The same stream beside other work**, twice as many busy processes as cores, for {result['minutes']:g} minutes: against a minute alone on the same machine, where frame age p99 was {alone['age_ms']['p99']:.1f} ms, inference takes {loaded['inference_ms']['p50'] / alone['inference_ms']['p50']:.2f}× as long in the "
        f"median and {loaded['inference_ms']['p99'] / alone['inference_ms']['p99']:.2f}× at p99; frame age p99 {loaded['age_ms']['p99']:.1f} ms where the deadline is {loaded['age_limit_ms']:.0f} ms; "
        f"{counted['captured']} frames captured, {loaded['processed']} answered, {loaded['late']} withheld as late, {counted['dropped']} dropped, counted at both ends; results by step: {share}; the longest time without an answer "
        f"{loaded['longest_without_an_answer_s']:.2f} s; own memory grew by {loaded['growth_mib']:.2f} MiB; {goals(loaded['verdicts'])}, {measured(result)}."
    )


def profiler(result: Result) -> str:
    """Whether the profiler tells the truth."""
    same, planted, ratios = result["same"], result["planted"], result["agreement"]["ratios"]
    alarms, hits = same["slower_or_faster"], planted["slower"]
    against = {
        "infer_stage_over_benchmark_app": "the stage `infer` and `benchmark_app`",
        "engine_over_benchmark_app": "the engine alone and `benchmark_app`",
        "predict_over_by_hand": "`predict` and a loop written by hand",
    }
    agreed = "; ".join(
        f"{words}, {value:.3f} ({low:.3f}–{high:.3f})" for name, words in against.items() for value, low, high in (ratios[name],)
    )
    unjudged = {name: result[name]["words"]["not judged"] for name in ("same", "planted")}
    missed = "; ".join(goal for goal, word in result["goals"].items() if word == "MISSED")
    return (
        f"**The profiler against itself**, of {result['bundle']}, trials of {result['seconds']:g} s or up to three times as long: of {same['trials']} comparisons of a bundle with itself {alarms[0]:.1%} ({alarms[1]:.1%}–{alarms[2]:.1%}) were a false alarm, and {unjudged['same']} not judged; a planted slowdown of "
        f"{result['planted_factor'] - 1:.0%} was found in {hits[0]:.1%} ({hits[1]:.1%}–{hits[2]:.1%}) of {planted['trials']}, and {unjudged['planted']} were not judged. Ratios of medians: {agreed}. {f'Missed: {missed}' if missed else 'Every goal met'}, {measured(result)}."
    )


def stream_faults(result: Result) -> str:
    """An engine that is lost."""
    said = [
        f"{kind}, {max(item['back_after_s'], default=0.0):.2f} s at most of {len(item['back_after_s'])}; {goals(item['verdicts'])}"
        for kind, item in result["faults"].items()
    ]
    return f"**An engine that is lost** in such a stream, from the signal to the next good answer: {'; '.join(said)}, {measured(result)}."


def input_gate(result: Result) -> str:
    """What the gate refuses."""
    rows = []
    for name, item in result["teachers"].items():
        known = {found["split"]: found for found in item["known"]}
        foreign = [f"{_short(found['set'])} {found['refused']['value']:.0%} ({found['auroc']['value']:.2f})" for found in item["foreign"]]
        rows.append((name, str(item["groups"]), interval(known["test"]["refused"]), ", ".join(foreign)))
    header = ("classifier", "patients or groups in `val`", "known frames of `test` refused", "foreign frames refused (AUROC)")
    return f"**Input gate**: shares refused at the bundle's own limits, {measured(result)}:\n\n{table(header, rows)}"


def _short(name: str) -> str:
    return name.removesuffix("/manifest.csv")
