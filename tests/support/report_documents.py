"""A compile's whole document with every section of the report, from seeded logits, and pictures to go with it."""

from __future__ import annotations

import copy

import numpy as np

from edgekit.evaluation import decision
from edgekit.evaluation.evaluate import evaluate
from edgekit.evaluation.metrics import Outcomes
from edgekit.report.curves import reliability_bins, roc_points
from edgekit.schema.model_io import OutputSpec

LABELS = ("benign", "malignant", "normal")
OUTPUT = OutputSpec(labels=LABELS, task="multiclass", positive="malignant")
FRAMES = 300
THRESHOLD = 0.4375

_RANDOM = np.random.default_rng(3)
TRUTH = np.eye(3, dtype=bool)[np.arange(FRAMES) % 3]
REFERENCE_LOGITS = (TRUTH * 4.0 + _RANDOM.normal(0, 1.3, TRUTH.shape)).astype(np.float32)
DEVICE_LOGITS = (REFERENCE_LOGITS + _RANDOM.normal(0, 0.35, TRUTH.shape)).astype(np.float32)
GROUPS = [f"patient-{index // 2}" for index in range(FRAMES)]


def _outcomes(logits):
    probability = decision.probabilities(decision.logits_by_label(logits, OUTPUT), OUTPUT, outputs=3, temperature=1.2)
    return Outcomes(probability=probability, truth=TRUTH, output=OUTPUT, thresholds={"malignant": THRESHOLD})


BEFORE, AFTER = _outcomes(REFERENCE_LOGITS), _outcomes(DEVICE_LOGITS)


def full_document(**changes):
    """A copy of the document; dotted keys (double underscores) are set."""
    document = copy.deepcopy(_DOCUMENT)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = document
        for parent in parents:
            place = place[parent]
        place[last] = value
    return document


def frames_and_overlays(size=32):
    """Seeded grey frames for every flip, and a red and a blue one of the same size in place of the maps."""
    random = np.random.default_rng(0)
    frames, overlays = {}, {}
    for flip in _DOCUMENT["flips"]:
        grey = random.integers(0, 256, (size, size), dtype=np.uint8)
        frames[flip["file"]] = grey
        colours = []
        for channel in (0, 2):
            rgb = np.repeat(grey[:, :, None], 3, axis=2)
            rgb[..., channel] = 255
            colours.append(rgb)
        overlays[flip["file"]] = tuple(colours)
    return frames, overlays


def worst_maps(size=32):
    """A seeded grey frame for every row of `cam.worst`, under a red and a blue one in place of the maps."""
    random = np.random.default_rng(1)
    found = {}
    for row in _DOCUMENT["cam"]["worst"]:
        grey = random.integers(0, 256, (size, size), dtype=np.uint8)
        sides = []
        for channel in (0, 2):
            rgb = np.repeat(grey[:, :, None], 3, axis=2)
            rgb[..., channel] = 255
            sides.append(rgb)
        found[row["file"]] = (grey, *sides)
    return found


def gate(name, value, bound, status="passed", advice="", explanation=""):
    return {
        "name": name,
        "value": value,
        "bound": bound,
        "passed": status != "failed",
        "status": status,
        "advice": advice,
        "explanation": explanation or f"A sentence about {name}.",
    }


def proportion(reference, device, spread, status="demonstrated", needed=None):
    difference = device - reference
    return {
        "reference": reference,
        "device": device,
        "difference": difference,
        "low": difference - spread,
        "high": difference + spread,
        "lower_bound": difference - spread,
        "margin": 0.05,
        "status": status,
        "frames_needed": needed,
    }


def step(name, title, latency_ms, size_bytes, parameters, auc, flips):
    return {
        "name": name,
        "title": title,
        "latency_ms": latency_ms,
        "size_bytes": size_bytes,
        "parameters": parameters,
        "auc": auc,
        "flips": flips,
        "frames": 240,
    }


def trial(number, criterion, target, latency_ms, auc, state="complete", *, pareto=False, chosen=False):
    return {
        "number": number,
        "criterion": criterion,
        "latency_target": target,
        "latency_ms": latency_ms,
        "auc": auc,
        "state": state,
        "pareto": pareto,
        "chosen": chosen,
    }


def epoch(number, train_loss, val_loss, val_auc, learning_rate=5e-4):
    return {"epoch": number, "train_loss": train_loss, "val_loss": val_loss, "val_auc": val_auc, "learning_rate": learning_rate}


def _roc():
    column = LABELS.index("malignant")
    points = {
        side: roc_points(found.probability[:, column], TRUTH[:, column], THRESHOLD)
        for side, found in (("reference", BEFORE), ("device", AFTER))
    }
    operating = {side: found.pop("operating") for side, found in points.items()}
    return [{"label": "malignant", **points, "operating": {**operating, "threshold": THRESHOLD}}]


def _reliability():
    def top(found):
        rows, answer = np.arange(FRAMES), found.probability.argmax(axis=1)
        return found.probability[rows, answer], TRUTH[rows, answer]

    return {
        "bins": reliability_bins(*top(BEFORE), *top(AFTER)),
        "temperature": {"reference": 1.182, "device": 1.243},
        "ece": {"reference_before": 0.0312, "reference": 0.0187, "device_before": 0.0391, "device": 0.0204},
    }


def _flips():
    found = []
    for index in np.flatnonzero((BEFORE.answers != AFTER.answers).any(axis=1)):
        right = [bool((side.answers[index] == TRUTH[index]).all()) for side in (BEFORE, AFTER)]
        found.append(
            {
                "file": f"case-{index}.png",
                "group": GROUPS[index],
                "kind": "harmful" if right == [True, False] else "helpful" if right == [False, True] else "neither",
                "truth": [LABELS[TRUTH[index].argmax()]],
                "reference": [LABELS[BEFORE.answers[index].argmax()]],
                "device": [LABELS[AFTER.answers[index].argmax()]],
                "reference_probability": float(BEFORE.probability[index].max()),
                "device_probability": float(AFTER.probability[index].max()),
            }
        )
    return found


def _layers():
    return [
        {
            "name": f"features.denseblock{1 + index // 12}.layer{index % 12}.conv",
            "before": 128 + 16 * (index % 5),
            "after": 32 + 16 * (index % 7),
        }
        for index in range(48)
    ]


def _training():
    return [
        {
            "stage": name,
            "best_epoch": best,
            "history": [
                epoch(
                    number,
                    start / number**0.5 + 0.05,
                    start / number**0.4 + 0.12 + 0.01 * max(0, number - best),
                    0.975 + 0.012 * (1 - 1 / number),
                )
                for number in range(1, count + 1)
            ],
        }
        for name, count, best, start in (("recover 1", 2, 2, 1.4), ("distill", 10, 8, 1.0), ("qat", 4, 4, 0.3))
    ]


def _figure(value, spread=0.01):
    return {"value": value, "low": value - spread, "high": value + spread}


def _likeness(median, low, overlap, near, sign):
    return {
        "pearson_median": median,
        "pearson_p5": low,
        "overlap_median": overlap,
        "peak_near": near,
        "peak_kept": near,
        "sign_median": sign,
    }


def _maps():
    """What `MapEvidence.to_json` gives."""
    random = (("head", 0, 0.661), ("head", 1, -0.136), ("all", 0, -0.183))
    return {
        "fidelity": {
            "frames": 298,
            "groups": 150,
            "featureless": 2,
            **{name: _figure(value) for name, value in _likeness(0.973, 0.912, 0.864, 0.981, 0.992).items()},
        },
        "residual_share": 3.1e-7,
        "control": {
            "frames": 64,
            "draws": [{"what": what, "seed": seed, "figures": _likeness(median, -0.3, 0.4, 0.6, 0.8)} for what, seed, median in random],
        },
        "localisation": {
            "frames": 79,
            "groups": 72,
            "splits": {"train": 57, "test": 22},
            "left_out": {"the mask is empty": 42},
            "chance": 0.118,
            "pointing": {**proportion(0.6835, 0.6962, 0.1, "not demonstrated", 395), "frames": 79, "groups": 72, "lost": 7, "gained": 8},
            "energy_reference": _figure(0.342),
            "energy_device": _figure(0.339),
            "energy_difference": _figure(-0.003),
        },
    }


_HOST = {
    **dict.fromkeys(("device_model", "cpu_limit")),
    "cpu_model": "Some CPU 3000",
    "architecture": "x86_64",
    "cores_physical": 2,
    "cores_usable": 2,
    "instruction_sets": ["avx2", "avx512_vnni"],
    "load_average": 0.4,
    "memory_mib": 7620.5,
    "system": "Some Linux",
    "kernel": "6.1",
    "python": "3.11.7 cpython",
    "packages": {"edgekit": "0.1.0", "numpy": "2.4.6"},
    "unavailable": {"device_model": "not known", "cpu_limit": "no limit is set"},
}

_RUNGS = (
    ("ptq", "post-training quantization", False),
    ("ptq-full", "histogram ranges, full bias correction", False),
    ("qat", "quantization-aware training", True),
)

_DOCUMENT = {
    "accepted": True,
    "enforce": True,
    "gates": [
        gate("auc_difference_lower_bound", -0.0042, -0.01, explanation="With 97.5 % confidence the AUC changes by more than −0.0042."),
        gate("harmful_flips", 0.0067, 0.01),
        gate("flips", 0.03, 0.05),
        gate("net_harm", -0.0012, 0.005),
        gate(
            "sensitivity",
            -0.0612,
            -0.05,
            "not demonstrated",
            advice="more test frames: about 410 with “malignant” would settle it",
            explanation="The bound is not above the margin, although the difference itself is.",
        ),
        gate("specificity", -0.0201, -0.05),
        gate("subgroup_flips", 0.04, 0.05),
        gate("ece_increase", 0.0017, 0.02),
        gate("cam_pearson", 0.973, 0.95),
        gate("cam_pearson_p5", 0.912, 0.85),
        gate("cam_overlap", 0.864, 0.7),
        gate("cam_peak", 0.981, 0.95),
        gate("cam_residual", 3.1e-7, 0.02),
        gate("cam_control", 0.0, 0.0),
        gate("cam_pointing_game", -0.0917, -0.05, "not demonstrated", advice="about 395 frames with masks"),
        gate("latency_ms", 1.4, 2.5, explanation="Measured on Some CPU 3000; it stands for no other device."),
        gate("size_mb", 4.22, 8.0),
    ],
    "reference": evaluate(BEFORE, groups=GROUPS, replicates=200).to_json(),
    "device": evaluate(AFTER, groups=GROUPS, replicates=200).to_json(),
    "name": "breast-us-densenet121",
    "version": "1.2.0",
    "target": {
        "name": "x86-64",
        "title": "x86-64 CPU",
        "architectures": ["x86_64"],
        "engines": [{"name": "openvino", "settings": {"NUM_STREAMS": "1"}}],
        "facts": [{"statement": "INT8 is fast.", "source": "a manual"}],
    },
    "task": "multiclass",
    "positive": "malignant",
    "source": "timm",
    "rung": "qat",
    "precision": "int8",
    "ladder": [
        {
            "rung": name,
            "title": title,
            "frames": 240,
            "flips": 9 - 2 * index,
            "harmful_flips": 4 - index,
            "auc_difference": -0.002 + index / 1000,
            "auc_difference_lower_bound": -0.009 + index / 500,
            "mean_kl": 0.004 / (index + 1),
            "max_abs_logit": 0.8 - index / 5,
            "sufficient": is_chosen,
            "chosen": is_chosen,
        }
        for index, (name, title, is_chosen) in enumerate(_RUNGS)
    ],
    "auc_difference": {
        "reference_auc": 0.9933,
        "device_auc": 0.9921,
        "difference": -0.0012,
        "standard_error": 0.0015,
        "lower_bound": -0.0042,
        "method": "delong",
        "reason": "",
    },
    "test_agreement": {"mean_kl": 0.0031, "mean_abs_probability": 0.0112, "max_abs_logit": 1.1},
    "flips": _flips(),
    "cam": {
        "rows": 7,
        "columns": 7,
        "reason": "",
        "largest_residual": 9.5e-7,
        "likeness_on_val": {"median": 0.991, "p5": 0.953},
        "likeness_on_test": {"median": 0.989, "p5": 0.942},
        "agreement": {"median": 0.973, "p5": 0.912},
        "new_network": False,
        "waived": [],
        "found": _maps(),
        "worst": [
            {
                "file": f"worst-{index}.png",
                "group": f"patient-{index}",
                "label": LABELS[index],
                "pearson": 0.61 + index / 10,
                "overlap": 0.3,
                "peak_shift": index,
            }
            for index in range(3)
        ],
    },
    "thresholds": {"malignant": THRESHOLD},
    "data": {split: dict.fromkeys(LABELS, number) for split, number in (("train", 400), ("val", 80), ("test", 100))},
    "calibration_frames": 300,
    "notes": ["the softmax at the end was removed"],
    "host": _HOST,
    "bundles": ["breast-us-densenet121.edgekit"],
    "size_bytes": 4_219_309,
    "stages": [{"name": "load", "cached": True, "seconds": 0.25}, {"name": "prune", "cached": False, "seconds": 412.5}],
    "oracle": None,
    "engines": [
        {
            "name": "openvino",
            "rung": "qat",
            "precision": "int8",
            "oracle": False,
            "accepted": True,
            "failed_gates": [],
            "auc": 0.97,
            "auc_lower_bound": -0.004,
            "frames": 240,
            "flips": 3,
            "harmful_flips": 1,
            "cam": {"median": 0.99, "p5": 0.95},
            "size_bytes": 4_300_000,
            "reason": "",
            "float32_operators": 0,
            "findings": [],
        }
    ],
    "latency_ms": {"p50": 1.4, "p90": 1.5, "p95": 1.6, "p99": 1.9, "max": 3.5, "samples": 861},
    "engine": {"name": "openvino", "version": "2026.4.1", "device": "CPU", "precision": "f32", "threads": "2"},
    "steps": [
        step("teacher (PyTorch)", "DenseNet-121, eager, FP32", 62.6, 28_300_000, 6_956_931, 0.9931, None),
        step("FP32, engine", "the same in OpenVINO", 14.8, 28_100_000, 6_956_931, 0.9931, 0),
        step("int8, unpruned", "post-training quantization of the teacher", 5.8, 7_600_000, 6_956_931, 0.9929, 2),
        step("pruned", "taylor, isomorphic, before distillation", None, 7_200_000, 1_790_400, 0.9641, 41),
        step("distilled", "10 epochs", None, 7_200_000, 1_790_400, 0.9926, 7),
        step("int8", "qat", 1.4, 2_100_000, 1_790_400, 0.9924, 5),
    ],
    "roc": _roc(),
    "reliability": _reliability(),
    "mcnemar": {"test": "clustered", "unit": "frames", "harmful": 5, "helpful": 4, "p_value": 0.8145},
    "operating_point": [
        {
            "label": "malignant",
            "threshold": THRESHOLD,
            "sensitivity": proportion(0.95, 0.94, 0.0512, "not demonstrated", 410),
            "specificity": proportion(0.945, 0.95, 0.0251),
        }
    ],
    "subgroups": [
        {
            "column": column,
            "value": value,
            "frames": frames,
            "groups": frames // 2,
            "flips": flips,
            "harmful": flips // 2,
            "helpful": flips - flips // 2,
            "upper": upper,
        }
        for column, value, frames, flips, upper in (
            ("scanner", "Aixplorer", 150, 3, 0.0573),
            ("scanner", "LOGIQ E9", 100, 4, 0.0993),
            ("scanner", "EPIQ 5", 50, 2, 0.1371),
            ("view", "radial", 140, 4, 0.0716),
            ("view", "antiradial", 160, 5, 0.0714),
        )
    ],
    "pruning": {
        "criterion": "taylor",
        "scope": "isomorphic",
        "measure": "latency",
        "target": 0.4,
        "share": 0.387,
        "unpruned_macs": None,
        "round_to": 16,
        "host": "Some CPU 3000, 2 threads",
        "probes": [
            {"ratio": ratio, "latency_ms": 5.8 * part, "reference_ms": 5.8, "share": part, "parameters": int(6_956_931 * (1 - ratio) ** 2)}
            for ratio, part in ((0.5, 0.46), (0.7, 0.27), (0.25, 0.71), (0.6, 0.36), (0.56, 0.387))
        ],
        "layers": _layers(),
    },
    "training": _training(),
    "search": {
        "storage": "sqlite:///study.db",
        "seed": 0,
        "trials": [
            trial(0, "taylor", 0.4, 2.35, 0.9911, pareto=True),
            trial(1, "l2", 0.4, 2.33, 0.9872),
            trial(2, "taylor", 0.25, 1.41, 0.9897, pareto=True, chosen=True),
            trial(3, "bn-scale", 0.3, 1.72, 0.9868),
            trial(4, "taylor", 0.8, 4.55, 0.9928, pareto=True),
            trial(5, "l2", 0.65, 3.77, 0.9921, pareto=True),
            trial(6, "bn-scale", 0.6, 3.6, 0.9902),
            trial(7, "l2", 0.25, 1.36, 0.9792, pareto=True),
            trial(8, "taylor", 0.5, None, None, state="failed"),
        ],
    },
    "ensemble": ["timm:tf_efficientnet_lite0", "onnx:/somewhere/private/second.onnx"],
    "student": None,
    "fallback": {
        "layers": [
            {"name": "blocks.0.conv", "type": "Convolution", "error": 0.0213},
            {"name": "blocks.3.se", "type": "MatMul", "error": 0.0004},
        ]
    },
}
