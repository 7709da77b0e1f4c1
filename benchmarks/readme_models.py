"""The tables about compiled models: accuracy, compression, maps, engines, architectures. Used by `readme_table.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from readme_words import Result, interval, measured, ratio, signed, table


def accuracy(result: Result) -> str:
    """The compiled teachers beside their FP32 originals and NNCF's defaults."""
    rows = [
        (
            name,
            f"{item['frames']} ({item['groups']})",
            interval(item["fp32_auc"]),
            interval(item["int8_auc"]),
            difference(item["auc_difference"]),
            f"{item['flips']} / {item['harmful_flips']}",
            f"{item['nncf_defaults']['flips']} / {item['nncf_defaults']['harmful_flips']}",
            f"{item['nncf_defaults']['mean_kl'] / item['mean_kl']:.1f}×" if item["mean_kl"] else "–",
            item["rung"],
            "passed" if item["accepted"] else "refused",
        )
        for name, item in result["teachers"].items()
    ]
    header = (
        *("model", "test frames (groups)", "AUC, trained FP32", "AUC, compiled", "ΔAUC (97.5 % bound)", "flips / harmful"),
        *("the same, NNCF defaults", "KL of NNCF defaults ÷ ours", "rung", "gate of the recipe"),
    )
    return f"**Accuracy** on the test split, compiled artefact against trained model, {measured(result)}:\n\n{table(header, rows)}"


def compression(result: Result) -> str:
    """The compressions beside the same teacher quantized with NNCF's defaults."""
    rows = [
        (
            name,
            f"{item['fp32_auc']['value']:.3f} → {item['auc']['value']:.3f}",
            difference(item["auc_difference"]),
            f"{item['flips']} / {item['harmful_flips']} / {item['helpful_flips']} of {item['frames']}",
            likeness(item["map"]),
            f"{item['nncf_defaults']['flips']}; {likeness(item['nncf_defaults']['map'])}",
            ratio(item["ptq_over_case"]),
            ratio(item["eager_over_case"]),
            item["rung"],
            "passed" if item["accepted"] else f"refused: {', '.join(item['failed_gates'])}",
        )
        for name, item in result["cases"].items()
    ]
    header = (
        *(
            "compression",
            "AUC, teacher FP32 → compiled",
            "ΔAUC (97.5 % bound)",
            "flips / harmful / helpful",
            "map, Pearson median / 5th percentile",
        ),
        *(
            "NNCF defaults on the teacher: flips; map",
            "latency of the teacher's plain INT8 ÷ this",
            "PyTorch eager FP32 ÷ this",
            "rung",
            "gate of the recipe",
        ),
    )
    return f"**Compression** on the test split, compiled artefact against the trained teacher, {measured(result)}:\n\n{table(header, rows)}"


def engines(result: Result) -> str:
    """The engines that read ONNX, on the teachers; and how fast ONNX Runtime is."""
    rows = [
        _engine(f"{name}{_day(result, result['dates'][name])}", row)
        for name, targets in result["teachers"].items()
        for engines in targets.values()
        for row in engines
    ]
    rows += [
        _engine(
            f"{name}, pruned to {item['share']:.0%} of {item['unpruned_macs'] / 1e6:.0f} million multiply-accumulates{_day(result, item['date'])}",
            row,
        )
        for name, item in result["pruned"].items()
        for row in item["engines"]
    ]
    header = (
        "model",
        "engine",
        "rung",
        "AUC, compiled",
        "flips / harmful",
        "map, Pearson median / 5th percentile",
        "size",
        "gate of the recipe",
    )
    timed = [
        (name, ratio(item["eager_over_onnxruntime"]), ratio(item["predict_over_bare"]), ratio(item["qdq_over_nncf_in_openvino"]))
        for name, item in result["speed"].items()
    ]
    speeds = (
        *("model", "PyTorch eager FP32 ÷ ONNX Runtime INT8", "`predict` ÷ bare ONNX Runtime session"),
        "in OpenVINO: ONNX Runtime's Q/DQ file ÷ NNCF's model",
    )
    return (
        f"**Engines that read ONNX**, on the test split, {measured(result)}; TensorRT's artefacts ran in the numerical oracle, on no Jetson:\n\n{table(header, rows)}\n\n"
        f"Their speed here{_day(result, result['dates']['speed'])}, as in the table of speed below:\n\n{table(speeds, timed)}"
    )


def _day(result: Result, day: str) -> str:
    """The day of a row, where it is another than that of the table."""
    return "" if day == result["date"] else f" ({day})"


def _engine(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        f"{row['name']}, {'in the oracle' if row['oracle'] else 'run'}",
        row["rung"],
        f"{row['auc']:.4f}",
        f"{row['flips']} / {row['harmful_flips']} of {row['frames']}",
        likeness(row["cam"]),
        f"{row['size_bytes'] / 1e6:.1f} MB",
        "passed" if row["accepted"] else f"refused: {', '.join(row['failed_gates'])}",
    )


def architectures(result: Result) -> str:
    """Which architectures' graphs conform to which TensorRT, and are built by NVIDIA's builder; those with the same outcome together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, row in result["architectures"].items():
        if "error" in row:
            outcome: tuple[str, ...] = (f"not loaded: {row['error']}", "–", "–", "–")
        else:
            int8, half = row["tensorrt-int8"], row["tensorrt-fp16"]
            typed = ", ".join(dict.fromkeys(int8[version] for version in ("10.3", "10.16", "11.4")))
            typed_half = ", ".join(dict.fromkeys(half[version] for version in ("10.3", "10.16", "11.4")))
            outcome = (int8["8.6"], typed, typed_half, f"{int8.get('rtx', 'not tried')}, {half.get('rtx', 'not tried')}")
        groups.setdefault(outcome, []).append(name)
    rows = [(", ".join(names), *outcome) for outcome, names in groups.items()]
    header = (
        "architectures",
        "int8, 8.6",
        "int8, 10.3 / 10.16 / 11.4",
        "fp16, 10.3 / 10.16 / 11.4",
        "NVIDIA's builder: int8, fp16",
    )
    return (
        f"**Graphs for TensorRT** of {len(result['architectures'])} architectures with random weights, held to the conformance rules of four versions, and parsed and built by "
        f"TensorRT for RTX on a CPU, {measured(result)}:\n\n{table(header, rows)}"
    )


def difference(found: Mapping[str, Any]) -> str:
    """ΔAUC with its bound, less what may fall unseen where nothing varies (`AucDifference.undetected`)."""
    bound = None if found["lower_bound"] is None else found["lower_bound"] - (found.get("undetected") or 0.0)
    return f"{signed(found['difference'])} (> {signed(bound)})"


def likeness(found: Mapping[str, float] | None) -> str:
    """Correlation of maps; a dash where there are none."""
    return "–" if found is None else f"{found['median']:.3f} / {found['p5']:.3f}"


def fidelity(result: Result) -> str:
    """The device's maps against FP32's on the teachers' test frames."""
    rows = []
    for name, item in result["cases"].items():
        maps = item["maps"]
        found, lesions = maps["fidelity"], maps["localisation"]
        control = max(draw["figures"]["pearson_median"] or 0.0 for draw in maps["control"]["draws"])
        rows.append(
            (
                f"{name}, {item['rung']}",
                f"{found['frames']} ({found['groups']})",
                f"{found['pearson_median']['value']:.3f} / {found['pearson_p5']['value']:.3f}",
                f"{found['overlap_median']['value']:.2f}",
                f"{found['peak_near']['value']:.1%}",
                f"{found['sign_median']['value']:.3f}",
                f"{maps['residual_share']:.0e}",
                f"{control:.2f}",
                "–" if lesions is None else pointing(lesions),
                f"{item['flips']} / {item['harmful_flips']}",
                "passed" if not item["failed_gates"] else f"refused: {', '.join(item['failed_gates'])}",
            )
        )
    header = (
        *(
            "model, rung",
            "test frames (groups)",
            "Pearson median / 5th percentile",
            "overlap of the top 10 %",
            "peak within one cell",
            "same sign",
        ),
        *(
            "residual ÷ logit's standard deviation",
            "Pearson of the nearest random network",
            "peak in the lesion, FP32 → device",
            "flips / harmful",
            "gate of the recipe",
        ),
    )
    return f"**Maps after quantization**, compiled artefact against FP32 on the test split, {measured(result)}:\n\n{table(header, rows)}"


def pointing(lesions: Mapping[str, Any]) -> str:
    """The pointing game of either side, and the frames that changed."""
    found = lesions["pointing"]
    return f"{found['reference']:.1%} → {found['device']:.1%} of {found['frames']} ({found['lost']} lost, {found['gained']} gained)"


def heads(result: Result) -> str:
    """The maps in the graph against autograd, kind by kind."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for item in result["rows"]:
        kinds.setdefault(item.get("kind", "none"), []).append(item)
    rows = []
    for kind, items in kinds.items():
        errors = [item["map_error"] for item in items if "map_error" in item]
        residuals = [item["residual"] / item["largest_logit"] for item in items if "residual" in item]
        rows.append(
            (
                kind,
                ", ".join(item["architecture"] for item in items),
                f"{max(errors):.0e}" if errors else "–",
                f"{max(residuals):.0e}" if residuals else "–",
            )
        )
    header = (
        "map",
        "architectures, random weights",
        "largest difference from autograd ÷ largest value",
        "largest residual ÷ largest logit",
    )
    text = (
        f"**Maps of {len(result['rows'])} architectures**, in the FP32 graph, against gradient · features by autograd, {measured(result)}:"
    )
    return f"{text}\n\n{table(header, rows)}"


def explanations(result: Result) -> str:
    """What a map costs, here and with the peers."""
    rows = []
    for name, item in result["architectures"].items():
        peers = item.get("openvino_xai", {}).get("ways", {})
        theirs = [f"{way.replace('_', ' ')}: {plain_ratio(found)}" for way, found in peers.items() if "error" not in found]
        grad_cam = item.get("grad_cam_over_int8", {"error": "not measured"})
        rows.append(
            (
                name,
                plain_ratio(item["map_over_plain"]) if "map_over_plain" in item else f"– ({item.get('error', 'no map')})",
                "; ".join(theirs) or ("– (fails)" if peers else "– (not measured)"),
                plain_ratio(grad_cam) if "ratio" in grad_cam else f"– ({grad_cam['error']})",
            )
        )
    header = (
        "model",
        "INT8 graph with map ÷ without",
        "openvino_xai's ReciproCAM, with ÷ without, in its own environment",
        "pytorch-grad-cam ÷ INT8 graph with map",
    )
    text = f"**What a map costs**, ratios of medians with 95 % intervals, interleaved, random weights, {measured(result)}:"
    return f"{text}\n\n{table(header, rows)}"


def plain_ratio(found: Mapping[str, Any]) -> str:
    """A ratio with its interval."""
    return f"{found['ratio']:.2f}× ({found['low']:.2f}–{found['high']:.2f})"


def overlay(result: Result) -> str:
    """The overlay against OpenCV's three calls."""
    rows = [(item["case"], plain_ratio(item["one_thread"]), plain_ratio(item["default_threads"])) for item in result["cases"]]
    header = ("frame", "edgekit ÷ OpenCV, one thread each (CPU time)", "edgekit ÷ OpenCV with its default threads (wall clock)")
    text = f"**Overlay**, ratios of medians with 95 % intervals, interleaved, against OpenCV's resize + applyColorMap + addWeighted, {measured(result)}:"
    return f"{text}\n\n{table(header, rows)}"


def precision(result: Result) -> str:
    """What OpenVINO's own choice of precision would have done."""
    return (
        f"**Pinned precision**: left to itself, OpenVINO runs the float model of `{result['teacher']}` in {result['default_precision']} here; that alone moves logits by "
        f"up to {result['max_abs_logit']:.2g} and changes {result['flips']} of {result['frames']} answers, {measured(result)}."
    )


def reproducible(result: Result) -> str:
    """Whether two compiles gave the same bytes."""
    said = [f"`{name}` {'the same bytes' if item['identical'] else 'DIFFERENT bytes'}" for name, item in result["teachers"].items()]
    return f"**Reproducible**: compiled twice with an empty stage cache, {', '.join(said)}, {measured(result)}."
