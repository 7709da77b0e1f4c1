"""The README's table comes from the benchmarks' results and from nothing else."""

from __future__ import annotations

import copy
import json
import runpy
import sys

import pytest
import repository

# As for a script: its own folder comes first.
sys.path.insert(0, str(repository.ROOT / "benchmarks"))
TABLE = runpy.run_path(str(repository.ROOT / "benchmarks" / "readme_table.py"))
sys.path.pop(0)
README = (repository.ROOT / "README.md").read_text("utf-8")
HOST = {"host": {"cpu_model": "A processor", "cores_usable": 2, "instruction_sets": ["avx2", "avx512_vnni"]}, "date": "2026-01-01"}


def _ratio(value: float, *, steady: bool = True) -> dict:
    return {
        "ratio": value,
        "low": value - 0.125,
        "high": value + 0.125,
        "a_median_ms": 2.0,
        "b_median_ms": 1.0,
        "pairs": 300,
        "steady": steady,
    }


def _figure(value: float) -> dict:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


RESULTS = {
    "accuracy": {
        **HOST,
        "teachers": {
            "lung": {
                "frames": 100,
                "groups": 40,
                "fp32_auc": _figure(0.951),
                "int8_auc": _figure(0.949),
                "auc_difference": {"difference": -0.002, "lower_bound": -0.0061},
                "flips": 2,
                "harmful_flips": 1,
                "rung": "ptq-full",
                "accepted": True,
                "nncf_defaults": {"flips": 7, "harmful_flips": 5, "mean_kl": 0.006},
                "mean_kl": 0.002,
            }
        },
    },
    "compression": {
        **HOST,
        "cases": {
            "small": {
                "accepted": False,
                "failed_gates": ["net_harm"],
                "rung": "qat",
                "frames": 200,
                "flips": 9,
                "harmful_flips": 6,
                "helpful_flips": 3,
                "auc_difference": {"difference": -0.003, "lower_bound": -0.0042},
                "fp32_auc": _figure(0.981),
                "auc": _figure(0.978),
                "map": {"median": 0.974, "p5": 0.913},
                "nncf_defaults": {"flips": 14, "harmful_flips": 8, "map": None},
                "ptq_over_case": _ratio(2.75),
                "eager_over_case": _ratio(31.5),
            }
        },
    },
    "fidelity": {
        **HOST,
        "cases": {
            "lung": {
                "rung": "qat",
                "accepted": False,
                "failed_gates": ["cam_peak"],
                "frames": 100,
                "flips": 8,
                "harmful_flips": 5,
                "maps": {
                    "fidelity": {
                        "frames": 99,
                        "groups": 41,
                        "pearson_median": _figure(0.972),
                        "pearson_p5": _figure(0.914),
                        "overlap_median": _figure(0.77),
                        "peak_near": _figure(0.932),
                        "sign_median": _figure(0.986),
                    },
                    "residual_share": 3e-6,
                    "control": {"draws": [{"figures": {"pearson_median": 0.31}}, {"figures": {"pearson_median": None}}]},
                    "localisation": {"pointing": {"reference": 0.7, "device": 0.6, "frames": 50, "lost": 6, "gained": 1}},
                },
            }
        },
    },
    "heads": {
        **HOST,
        "rows": [
            {"architecture": "resnet", "kind": "pooled-linear", "map_error": 2e-7, "residual": 4e-8, "largest_logit": 0.5},
            {"architecture": "other", "kind": "pooled-linear", "map_error": 5e-6, "residual": 1e-8, "largest_logit": 1.0},
            {"architecture": "strange", "reason": "no rule"},
        ],
    },
    "explanations": {
        **HOST,
        "architectures": {
            "resnet": {
                "map_over_plain": {"ratio": 1.02, "low": 1.01, "high": 1.03},
                "openvino_xai": {"ways": {"fp32": {"ratio": 1.18, "low": 1.15, "high": 1.21}, "broken": {"error": "why"}}},
                "grad_cam_over_int8": {"ratio": 61.5, "low": 60.0, "high": 63.0},
            },
            "odd": {"error": "refused by the gate"},
        },
    },
    "overlay": {
        **HOST,
        "cases": [
            {
                "case": "480×640 grey",
                "one_thread": {"ratio": 1.55, "low": 1.5, "high": 1.6},
                "default_threads": {"ratio": 1.85, "low": 1.8, "high": 1.9},
            }
        ],
    },
    "engines": {
        **HOST,
        "teachers": {
            "lung": {
                "jetson": [
                    {
                        "name": "tensorrt-int8",
                        "rung": "ptq",
                        "precision": "int8",
                        "oracle": True,
                        "accepted": True,
                        "failed_gates": [],
                        "auc": 0.9432,
                        "auc_lower_bound": -0.004,
                        "frames": 300,
                        "flips": 4,
                        "harmful_flips": 3,
                        "cam": {"median": 0.991, "p5": 0.961},
                        "size_bytes": 4_300_000,
                    }
                ],
                "cpu": [
                    {
                        "name": "onnxruntime",
                        "rung": "ptq-full",
                        "precision": "int8",
                        "oracle": False,
                        "accepted": False,
                        "failed_gates": ["flips"],
                        "auc": 0.9321,
                        "auc_lower_bound": None,
                        "frames": 300,
                        "flips": 21,
                        "harmful_flips": 11,
                        "cam": None,
                        "size_bytes": 4_700_000,
                    }
                ],
            }
        },
        "pruned": {
            "lung": {
                "date": "2026-02-02",
                "target": 0.6,
                "share": 0.593,
                "unpruned_macs": 400_000_000,
                "macs": 237_200_000,
                "parameters": 1_000_000,
                "engines": [
                    {
                        "name": "tensorrt-fp16",
                        "rung": "float",
                        "precision": "fp16",
                        "oracle": True,
                        "accepted": True,
                        "failed_gates": [],
                        "auc": 0.9411,
                        "auc_lower_bound": -0.006,
                        "frames": 300,
                        "flips": 7,
                        "harmful_flips": 5,
                        "cam": None,
                        "size_bytes": 2_100_000,
                    }
                ],
            }
        },
        "dates": {"lung": "2026-03-03", "speed": "2026-04-04"},
        "speed": {
            "resnet": {
                "eager_over_onnxruntime": _ratio(4.75),
                "predict_over_bare": _ratio(1.75),
                "qdq_over_nncf_in_openvino": _ratio(1.5, steady=False),
            }
        },
    },
    "architectures": {
        **HOST,
        "architectures": {
            **{
                name: {
                    "map": True,
                    "tensorrt-int8": {"8.6": "conforms", "10.3": "conforms", "10.16": "conforms", "11.4": "breaks Q8", "rtx": "built"},
                    "tensorrt-fp16": {**dict.fromkeys(("10.3", "10.16", "11.4"), "conforms"), "rtx": "refused at parse: why"},
                }
                for name in ("resnet", "other")
            },
            "strange": {"error": "the model takes two inputs"},
        },
    },
    "speed": {
        **HOST,
        "frame": [480, 640],
        "architectures": {
            "resnet": {
                "eager_over_int8": _ratio(6.5),
                "predict_over_bare": _ratio(1.25),
                "overlay_over_bare": _ratio(1.75),
                "preprocess_over_bare": _ratio(0.25),
                "infer_over_bare": _ratio(1.125),
                "map_over_plain": _ratio(1.0, steady=False),
            }
        },
    },
    "throughput": {
        **HOST,
        "files": 60,
        "frame": [480, 640],
        "jobs": 2,
        "architectures": {
            "resnet": {
                "ratio": 0.87,
                "low": 0.85,
                "high": 0.9,
                "frames_per_second": {"edgekit": 87.4, "throughput": 100.4, "latency": 91.2},
                "against": "throughput",
                "blocks": 7,
                "stages_ms": {"read": 3.14, "preprocess": 0.55, "infer": 18.26, "predict": 19.03},
            }
        },
    },
    "cold_start": {
        **HOST,
        "bundle": "lung",
        "runs": 25,
        **{
            name: {
                "ms": {"ratio": ratio, "low": ratio - 0.03, "high": ratio + 0.03, "edgekit": 210.4, "bare": 171.0},
                "peak_mib": {"ratio": 1.07, "low": 1.06, "high": 1.08, "edgekit": 116.3, "bare": 108.7},
            }
            for name, ratio in (("without_cache", 1.23), ("with_cache", 0.91))
        },
    },
    "stream-alone": {
        **HOST,
        "fps": 60.0,
        "minutes": 10.0,
        "infer_ms": 25.0,
        "alone": {
            "age_ms": {"p99": 44.81},
            "age_limit_ms": 60.09,
            "counted": {"captured": 36001, "dropped": 13956},
            "processed": 22045,
            "growth_mib": 0.031,
            "verdicts": {"current": True, "own_answers": False},
        },
    },
    "stream-loaded": {
        **HOST,
        "minutes": 9.0,
        "alone": {"inference_ms": {"p50": 20.0, "p99": 25.0}, "age_ms": {"p99": 47.7}},
        "loaded": {
            "inference_ms": {"p50": 30.0, "p99": 61.0},
            "age_ms": {"p99": 88.8},
            "age_limit_ms": 101.0,
            "counted": {"captured": 777, "dropped": 333},
            "processed": 440,
            "late": 4,
            "share_of_results_on_step": {"full": 0.62, "no map": 0.38},
            "longest_without_an_answer_s": 1.23,
            "growth_mib": 0.21,
            "verdicts": {"current": True, "contending": False, "bounded": None},
        },
    },
    "profiler": {
        **HOST,
        "planted_factor": 1.1,
        "bundle": "lung.edgekit",
        "seconds": 1.5,
        "goals": {"at most 5%: 1.3%": "met", "engine within 3%: 0.981": "MISSED"},
        "same": {"trials": 75, "slower_or_faster": [0.013, 0.001, 0.072], "words": {"slower": 1, "not judged": 3}},
        "planted": {"trials": 74, "slower": [0.987, 0.928, 0.999], "words": {"slower": 73, "not judged": 1}},
        "agreement": {
            "ratios": {
                "infer_stage_over_benchmark_app": [1.011, 1.001, 1.021],
                "engine_over_benchmark_app": [0.981, 0.971, 0.991],
                "predict_over_by_hand": [1.002, 0.992, 1.012],
            }
        },
    },
    "stream-faults": {
        **HOST,
        "faults": {
            "killed": {"back_after_s": [0.8, 0.85], "verdicts": {"back_in_time": True}},
            "hung": {"back_after_s": [1.95, 1.6], "verdicts": {"back_in_time": False}},
        },
    },
    "input_gate": {
        **HOST,
        "teachers": {
            "lung": {
                "groups": 64,
                "known": [{"split": "val", "refused": _figure(0.0)}, {"split": "test", "refused": _figure(0.021)}],
                "foreign": [{"set": "mri/manifest.csv", "refused": _figure(0.85), "auroc": _figure(0.975)}],
            }
        },
    },
    "precision": {**HOST, "teacher": "lung", "default_precision": "bf16", "frames": 100, "flips": 3, "max_abs_logit": 0.87},
    "reproducible": {
        **HOST,
        "teachers": {"lung": {"identical": True, "sha256": ["a", "a"]}, "heart": {"identical": False, "sha256": ["a", "b"]}},
    },
}


def test_every_figure_is_in_the_table():
    """Each measured figure is there, with intervals, counts, and what did not settle."""
    text = TABLE["render"](RESULTS)
    for expected in (
        *(
            "| lung | 100 (40) |",
            "0.951 (0.941–0.961)",
            "0.949 (0.939–0.959)",
            "−0.0020 (> −0.0061)",
            "2 / 1",
            "7 / 5",
            "3.0×",
            "ptq-full",
            "0.981 → 0.978",
            "−0.0030 (> −0.0042)",
            "9 / 6 / 3 of 200",
            "0.974 / 0.913",
            "14; –",
            "2.75×",
            "31.50×",
            "refused: net_harm",
            "passed",
        ),
        *(
            "lung, qat | 99 (41)",
            "0.972 / 0.914",
            "| 0.77 | 93.2% | 0.986 | 3e-06 | 0.31 |",
            "70.0% → 60.0% of 50 (6 lost, 1 gained)",
        ),
        *("8 / 5 | refused: cam_peak", "| pooled-linear | resnet, other | 5e-06 | 8e-08 |", "| none | strange | – | – |"),
        *(
            "1.02× (1.01–1.03) | fp32: 1.18× (1.15–1.21) | 61.50×",
            "| odd | – (refused by the gate) | – (not measured) | – (not measured) |",
        ),
        "| 480×640 grey | 1.55× (1.50–1.60) | 1.85× (1.80–1.90) |",
        *("6.50× (6.38–6.62)", "1.25× (1.12–1.38)", "1.00× (0.88–1.12, not steady)", "480 × 640"),
        "| lung (2026-03-03) | tensorrt-int8, in the oracle |",
        "| lung, pruned to 59% of 400 million multiply-accumulates (2026-02-02) | tensorrt-fp16, in the oracle | float | 0.9411 | 7 / 5 of 300 |",
        "Their speed here (2026-04-04), as in",
        *("tensorrt-int8, in the oracle", "0.9432", "4 / 3 of 300", "0.991 / 0.961", "4.3 MB"),
        *("onnxruntime, run", "21 / 11 of 300", "refused: flips"),
        *("4.75×", "1.75×", "1.50× (1.38–1.62, not steady)"),
        *("of 3 architectures", "| resnet, other | conforms | conforms, breaks Q8 | conforms | built, refused at parse: why |"),
        "| strange | not loaded: the model takes two inputs |",
        *("| resnet | 2.0 ms |", "1.75× (1.62–1.88)", "0.25× (0.12–0.38)", "1.12× (1.00–1.25)"),
        "| resnet | 87 | 100 / 91 | 0.87 (0.85–0.90) | 3.1 / 0.6 / 18.3 / 19.0 |",
        *("210 ms against 171 ms: 1.23× (1.20–1.26)", "116 MiB against 109 MiB: 1.07×", "0.91× (0.88–0.94)", "median of 25"),
        *(
            "p99 44.8 ms where 60.1 ms are allowed",
            "36001 frames captured, 22045 answered, 13956 dropped",
            "by 0.03 MiB; missed: own answers",
        ),
        *("1.50× as long in the median and 2.44× at p99", "p99 88.8 ms where the deadline is 101 ms", "9 minutes", "p99 was 47.7 ms"),
        *(
            "777 frames captured, 440 answered, 4 withheld as late, 333 dropped",
            "full 62%, no map 38%",
            "1.23 s",
            "by 0.21 MiB; missed: contending; not judged: bounded, ",
        ),
        "killed, 0.85 s at most of 2; every goal met; hung, 1.95 s at most of 2; missed: back in time",
        *(
            "of 75 comparisons of a bundle with itself 1.3% (0.1%–7.2%)",
            "were a false alarm, and 3 not judged",
            "slowdown of 10% was found in 98.7% (92.8%–99.9%) of 74, and 1 were not judged",
        ),
        *("of lung.edgekit, trials of 1.5 s", "Missed: engine within 3%: 0.981"),
        *("`infer` and `benchmark_app`, 1.011 (1.001–1.021)", "by hand, 1.002 (0.992–1.012)"),
        "| lung | 64 | 0.021 (0.011–0.031) | mri 85% (0.97) |",
        *("bf16", "0.87", "3 of 100"),
        *("`lung` the same bytes", "`heart` DIFFERENT bytes"),
    ):
        assert expected in text, expected
    assert text.count("A processor (AVX-512 VNNI), 2 cores, 2026-01-01") == 18


def test_a_figure_that_could_not_be_measured():
    """An undefined figure is said to be undefined, and a figure without an interval has none."""
    results = copy.deepcopy(RESULTS)
    teacher = results["accuracy"]["teachers"]["lung"]
    teacher["fp32_auc"] = {"value": None, "low": None, "high": None}
    teacher["int8_auc"] = {"value": 0.9, "low": None, "high": None}
    teacher["auc_difference"]["lower_bound"] = None
    teacher["mean_kl"] = 0.0
    assert "| undefined | 0.900 | −0.0020 (> undefined) | 2 / 1 | 7 / 5 | – |" in TABLE["render"](results)


@pytest.mark.parametrize("missing", RESULTS)
def test_a_missing_result_is_named(tmp_path, missing):
    """Without one of the results there is no table, and the message says which script makes it."""
    for name, document in RESULTS.items():
        if name != missing:
            (tmp_path / f"{name}.json").write_text(json.dumps(document))
    stem, _, part = missing.partition("-")
    script = rf"{stem}\.py --only {part}" if part else rf"{stem}\.py"
    with pytest.raises(SystemExit, match=rf"{missing}\.json is missing; run python benchmarks/{script} first"):
        TABLE["load_results"](tmp_path)


def test_a_result_that_is_not_json(tmp_path):
    """A damaged result is named."""
    (tmp_path / "accuracy.json").write_text("{")
    with pytest.raises(SystemExit, match=r"accuracy\.json cannot be read"):
        TABLE["load_results"](tmp_path)


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize(
    "damage", [lambda document: document.clear(), lambda document: document.pop("host")], ids=["empty", "without-host"]
)
def test_a_result_of_another_shape_is_named(name, damage):
    """A result of an older script ends with its name and not with a half table."""
    results = copy.deepcopy(RESULTS)
    damage(results[name])
    with pytest.raises(SystemExit, match=rf"benchmarks/results/{name}\.json is not what"):
        TABLE["render"](results)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["avx2"], "no VNNI"),
        (["avx2", "avx_vnni"], "AVX-VNNI"),
        (["avx2", "avx_vnni", "avx512_vnni"], "AVX-512 VNNI"),
        (["avx512_vnni", "amx_int8"], "AMX"),
        (["asimd", "dotprod"], "DotProd"),
        (None, "instructions unknown"),
    ],
)
def test_a_figure_says_what_the_processor_does_int8_with(sets, said):
    """The fastest of its instructions for INT8, or that it has none: two processors of one name may differ in it."""
    results = copy.deepcopy(RESULTS)
    results["speed"]["host"]["instruction_sets"] = sets
    assert f"A processor ({said}), 2 cores" in TABLE["render"](results)


def test_only_the_part_between_the_markers_changes():
    """Everything around the markers stays, and a second run changes nothing."""
    new = TABLE["insert"](README, "| a table |")
    before, after = README.split(TABLE["BEGIN"])[0], README.split(TABLE["END"])[1]
    assert new == f"{before}{TABLE['BEGIN']}\n| a table |\n{TABLE['END']}{after}"
    assert TABLE["insert"](new, "| a table |") == new


@pytest.mark.parametrize("page", ["", "{0}", "{1}\n{0}", "{0}{1}{0}{1}"])
def test_a_page_without_its_markers(page):
    """Without both markers, once and in order, nothing is written."""
    with pytest.raises(SystemExit, match="markers"):
        TABLE["insert"](page.format(TABLE["BEGIN"], TABLE["END"]), "")


def test_the_pages_are_what_was_measured():
    """The tables are those of the results that are kept."""
    for path, page in TABLE["pages"]().items():
        assert path.read_text("utf-8") == page, f"run python benchmarks/readme_table.py: {path.name}"


def test_the_short_table_has_a_figure_of_each_benchmark():
    """Each row has its figure and where it was measured; what was refused or missed is said to be."""
    text = TABLE["render_digest"](RESULTS)
    for expected in (
        *(
            "| resnet 6.50× |",
            "| resnet 1.25× |",
            "resnet 0.87×",
            "9 of 200 (refused)",
            "0.972 / 0.914",
            *("compiled ahead: 210 ms, 0.91× as long and 1.07× the memory", "at the start: 210 ms, 1.23× as long"),
        ),
        *("45 ms of 60 ms allowed; missed: own answers", "89 ms of 101 ms allowed; missed: contending; not judged: bounded"),
        *("killed 0.85 s of 2 times; every goal met", "hung 1.95 s of 2 times; missed: back in time"),
        "1% of 75 false alarms, 3 not judged; 99% of 74 found, 1 not judged; 1 of 2 goals missed",
    ):
        assert expected in text, expected
    assert text.count("A processor (AVX-512 VNNI), 2 cores, 2026-01-01") == sum(len(rows) for rows in TABLE["ROWS"].values())


@pytest.mark.parametrize("name", TABLE["ROWS"])
def test_the_short_table_too_names_a_result_of_another_shape(name):
    """As the tables of the other page."""
    results = copy.deepcopy(RESULTS)
    results[name].clear()
    with pytest.raises(SystemExit, match=rf"benchmarks/results/{name}\.json is not what"):
        TABLE["render_digest"](results)
