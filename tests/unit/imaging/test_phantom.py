"""The phantom: the same seed the same bytes, the artefacts where physics puts them, no shortcut to the label, and complete data sets."""

import csv
import dataclasses

import numpy as np
import pytest
from PIL import Image

from edgekit.errors import DataError, OutputError
from edgekit.imaging import phantom
from edgekit.imaging import phantom_findings as findings
from edgekit.imaging.phantom_anatomy import draw_chest, draw_patient, pleura_and_a_lines, scatterers
from edgekit.imaging.phantom_scanner import MARGIN_LINES, PhantomSpec, Sector, make_beam, make_scan_converter

SMALL = PhantomSpec(rows=120, columns=160, lines=64, samples=192)


def chest(patient=0, *, seed=5, ribs=None, frame=0):
    """A chest on the small grid, with other ribs where asked."""
    person = draw_patient(SMALL, seed=seed, patient=patient)
    if ribs is not None:
        person = dataclasses.replace(person, ribs=ribs)
    return draw_chest(person, np.random.default_rng([seed, patient, frame]))


def auc(negative, positive):
    """Chance that a positive ranks above a negative (Mann-Whitney)."""
    return (np.asarray(positive)[:, None] > np.asarray(negative)[None, :]).mean()


@pytest.fixture(scope="module")
def frames():
    """24 patients under each label, one frame each: the same chests, so that differences are the findings'."""
    return {
        label: np.stack([phantom.frame(label, patient=patient, index=0, seed=1, spec=SMALL) for patient in range(24)])
        for label in phantom.LABELS
    }


@pytest.mark.parametrize("label", phantom.LABELS)
def test_the_same_seed_gives_the_same_bytes(label):
    """A frame depends on its arguments alone, not on what was made before it."""
    first = phantom.frame(label, patient=3, index=2, seed=7)
    phantom.frame("a-lines", patient=9, index=0, seed=1)
    draw_patient.cache_clear()
    assert (phantom.frame(label, patient=3, index=2, seed=7) == first).all()
    assert (first.shape, first.dtype) == ((360, 480), np.uint8)


@pytest.mark.parametrize("other", [{"patient": 1}, {"index": 1}, {"seed": 1}])
def test_another_patient_index_or_seed_gives_another_frame(other):
    """No two frames of a data set are one."""
    arguments = {"patient": 0, "index": 0, "seed": 0}
    assert (phantom.frame("a-lines", **arguments, spec=SMALL) != phantom.frame("a-lines", **(arguments | other), spec=SMALL)).any()


def test_frames_of_a_patient_are_alike_and_of_two_patients_are_not():
    """The sector, wall and a part of the speckle stay with the patient, which is why splits go by patient."""
    first, second = (phantom.frame("a-lines", patient=0, index=index, seed=2, spec=SMALL) for index in (0, 1))
    stranger = phantom.frame("a-lines", patient=1, index=0, seed=2, spec=SMALL)
    alike, unlike = (np.corrcoef(first.reshape(-1), other.reshape(-1))[0, 1] for other in (second, stranger))
    assert alike > unlike + 0.1


def test_outside_the_sector_is_black_and_inside_is_not(frames):
    """The upper corners lie beside a convex sector; its axis is inside."""
    for stack in frames.values():
        assert (stack[:, :20, :20] == 0).all()
        assert (stack[:, :20, -20:] == 0).all()
        assert (stack[:, 10:60, 70:90].mean(axis=(1, 2)) > 10).all()


def test_a_lines_lie_at_whole_multiples_of_the_pleuras_depth():
    """Reverberation between pleura and transducer: the line of order k peaks at k times the pleura's depth and fades with k."""
    body = chest(ribs=())
    pleura, a_lines = pleura_and_a_lines(body, 0.3)
    middle = len(body.pleura_mm) // 2
    depth, pleura_mm = body.patient.depth_mm[:, 0], float(body.pleura_mm[middle])
    assert depth[pleura[:, middle].argmax()] == pytest.approx(pleura_mm, abs=body.patient.sector.sample_mm)
    peaks = []
    for order in range(2, int(body.patient.sector.depth_mm / pleura_mm)):
        near = np.abs(depth - order * pleura_mm) < pleura_mm / 2
        assert depth[near][a_lines[near, middle].argmax()] == pytest.approx(order * pleura_mm, abs=body.patient.sector.sample_mm)
        peaks.append(a_lines[near, middle].max())
    assert pleura[:, middle].max() > peaks[0]
    assert peaks == sorted(peaks, reverse=True)


@pytest.mark.parametrize("seed", range(6))
def test_b_lines_start_at_the_pleura_reach_the_bottom_without_fading_and_erase_a_lines(seed):
    """The defining features of Lichtenstein and Volpicelli."""
    body = chest(seed, ribs=())
    rng = np.random.default_rng(seed)
    finding = findings.b_lines(body, rng)
    columns = np.flatnonzero(finding.mask.any(axis=0))
    assert columns.size > 0
    assert (body.below_mm[finding.mask] > 0).all()
    assert finding.mask[-1, columns].all()
    line = columns[finding.power[-40:, columns].mean(axis=0).argmax()]
    below = np.flatnonzero(body.below_mm[:, line] > 45)
    just_below = np.flatnonzero((body.below_mm[:, line] > 25) & (body.below_mm[:, line] < 45))
    assert finding.power[below, line].mean() == pytest.approx(finding.power[just_below, line].mean(), rel=0.35)
    assert (finding.power[body.below_mm < 0] == 0).all()
    assert finding.aerated[:, line].max() < 0.5


@pytest.mark.parametrize("seed", range(6))
def test_a_consolidation_lies_below_the_pleura_and_ends(seed):
    """Its region touches the pleura, does not reach the bottom, breaks the pleural line and takes the A-lines from behind it."""
    body = chest(seed, ribs=())
    finding = findings.consolidation(body, np.random.default_rng(seed))
    assert 20 < finding.mask.sum() < 0.5 * finding.mask.size
    assert 0 < body.below_mm[finding.mask].min() < 1.5
    assert not finding.mask[-5:].any()
    deepest = finding.mask.any(axis=0) & (np.where(finding.mask, body.below_mm, 0).max(axis=0) > 4)
    assert finding.aerated[-1, ~finding.mask.any(axis=0)].min() > 0.5
    assert finding.pleura[deepest].mean() < 0.75
    assert (finding.power[body.below_mm < 0] < 1e-12).all()


def test_z_lines_fade():
    """What a healthy lung shows instead of B-lines is gone before the bottom, and leaves A-lines and pleura alone."""
    body = chest(ribs=())
    for seed in range(12):
        finding = findings.healthy(body, np.random.default_rng(seed))
        top = finding.power[(body.below_mm > 0) & (body.below_mm < 5)].max()
        assert finding.power[-1].max() <= 0.05 * top
        assert (finding.aerated == 1).all()
        assert (finding.pleura == 1).all()
        assert not finding.mask.any()


def test_a_rib_casts_a_shadow():
    """Nothing returns from below a rib; findings are put where the pleura is seen."""
    body = next(chest(patient) for patient in range(20) if len(draw_patient(SMALL, seed=5, patient=patient).ribs) == 2)
    shadowed = body.open[-1] < 0.3
    assert shadowed.any()
    assert (body.open[0] == 1).all()
    assert not (shadowed & body.visible).any()


@pytest.mark.parametrize("label", phantom.LABELS)
def test_the_mask_marks_the_finding(label):
    """The mask has the frame's geometry, lies inside the sector, and is empty for a healthy lung only."""
    for patient in range(8):
        pixels, mask = phantom.frame_with_mask(label, patient=patient, index=0, seed=3, spec=SMALL)
        assert (mask.shape, mask.dtype) == (pixels.shape, np.bool_)
        assert mask.any() == (label != "a-lines")
        assert (pixels == phantom.frame(label, patient=patient, index=0, seed=3, spec=SMALL)).all()
        sector = draw_patient(SMALL, seed=3, patient=patient).converter.pixels
        assert set(np.flatnonzero(mask)) <= set(sector.tolist())


def test_b_lines_are_brighter_than_what_is_beside_them(frames):
    """The finding is in the picture, not only in the mask."""
    contrast = []
    for patient in range(24):
        pixels, mask = phantom.frame_with_mask("b-lines", patient=patient, index=0, seed=1, spec=SMALL)
        depth = np.flatnonzero(mask.any(axis=1))
        beside = ~mask & (pixels > 0) & np.isin(np.arange(mask.shape[0]), depth)[:, None]
        contrast.append(pixels[mask].mean() - pixels[beside].mean())
    assert np.median(contrast) > 10


@pytest.mark.parametrize(
    "measure",
    [lambda f: f.mean(), lambda f: f[:30].mean(), lambda f: f[60:].mean(), lambda f: np.median(f[f > 0]), lambda f: (f > 0).mean()],
)
def test_brightness_does_not_tell_the_labels_apart(frames, measure):
    """The gain is set without looking at the label: a classifier has to find the structure."""
    values = {label: [measure(f) for f in stack] for label, stack in frames.items()}
    for label, others in (("b-lines", "a-lines"), ("consolidation", "a-lines"), ("consolidation", "b-lines")):
        # 24 frames a side: chance alone stays within 0.25 and 0.75.
        assert 0.25 < auc(values[others], values[label]) < 0.75


def test_a_finding_that_only_adds_brightness_adds_nothing_to_the_frame():
    """The time gain takes back, for wall and lung, whatever level the echoes had."""
    body = chest(ribs=())
    level = np.random.default_rng(0).normal(-30, 5, body.below_mm.shape).astype(np.float32)
    plain, louder = (phantom.compress(level + db, body, np.random.default_rng(1), 60.0) for db in (0, 9))
    assert 20 < plain.mean() < 200
    assert np.abs(plain - louder).max() < 0.1


def test_speckle_is_fully_developed_and_the_beam_keeps_its_energy():
    """Uniform tissue has Rayleigh amplitude (mean over standard deviation 1.91) and keeps its power through the point-spread function."""
    sector = Sector(radius_mm=55, half_angle_rad=0.5, depth_mm=100, lines=128, samples=384)
    beam = make_beam(sector, frequency_mhz=3.5, focus_mm=40, focal_width_mm=0.65)
    echoes = beam.convolve(scatterers(np.random.default_rng(0), (384, 128 + 2 * MARGIN_LINES)))[10:-10]
    assert (np.abs(echoes) ** 2).mean() == pytest.approx(1, rel=0.05)
    assert np.abs(echoes).mean() / np.abs(echoes).std() == pytest.approx(1.91, rel=0.05)


def test_the_beam_widens_away_from_the_focus():
    """A point far below the focus is smeared over more lines than one at the focus."""
    sector = Sector(radius_mm=55, half_angle_rad=0.5, depth_mm=120, lines=128, samples=384)
    beam = make_beam(sector, frequency_mhz=3.5, focus_mm=30, focal_width_mm=0.65)
    points = np.zeros((384, 128 + 2 * MARGIN_LINES), dtype=np.complex64)
    points[[96, 370], 72] = 1
    echoes = np.abs(beam.convolve(points))
    wide = [(echoes[row] > 0.5 * echoes[row].max()).sum() * (55 + row * sector.sample_mm) for row in (96, 370)]
    assert wide[1] > 1.5 * wide[0]


def test_scan_conversion_puts_a_sample_where_its_depth_and_angle_say():
    """A bright spot on the axis at 60 mm comes out on the axis, at 60 mm below the transducer's middle."""
    sector = Sector(radius_mm=50, half_angle_rad=0.5, depth_mm=100, lines=63, samples=400)
    samples = np.zeros((400, 63 + 2 * MARGIN_LINES), dtype=np.float32)
    samples[238:242, MARGIN_LINES + 31] = 255
    frame = make_scan_converter(sector, (200, 301)).frame(samples)
    row, column = np.unravel_index(frame.argmax(), frame.shape)
    top = 50 * np.cos(0.5)
    assert (row + 0.5) * (150 - top) / 200 + top == pytest.approx(50 + 60, abs=1)
    assert column == 150


def test_a_data_set_is_complete_and_split_by_patient(tmp_path):
    """Every file is there, every label is in every split, no patient is in two splits or labels, masks are where there is a finding."""
    manifest = phantom.write_dataset(tmp_path / "new" / "set", patients_per_class=6, frames_per_patient=2, seed=4, spec=SMALL)
    with manifest.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["file", "label", "patient_or_video_id", "split", "mask"]
    assert len(rows) == 6 * 2 * 3
    assert {(row["label"], row["split"]) for row in rows} == {(x, y) for x in phantom.LABELS for y in ("train", "calib", "val", "test")}
    for key in ("label", "split"):
        assert len({(row["patient_or_video_id"], row[key]) for row in rows}) == 6 * 3
    for row in rows:
        assert np.asarray(Image.open(manifest.parent / row["file"])).shape == (120, 160)
        assert (row["mask"] == "") == (row["label"] == "a-lines")
        if row["mask"]:
            assert np.asarray(Image.open(manifest.parent / row["mask"])).any()


def test_the_same_data_set_twice_is_the_same_files(tmp_path):
    """A data set can be thrown away and made again."""
    sets = [
        phantom.write_dataset(tmp_path / name, patients_per_class=4, frames_per_patient=1, seed=0, spec=SMALL).parent
        for name in ("one", "two")
    ]
    files = [{path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} for folder in sets]
    assert files[0] == files[1]
    assert len(files[0]) == 12 + 8 + 1


@pytest.mark.parametrize(("count", "expected"), [(4, (1, 1, 1, 1)), (5, (2, 1, 1, 1)), (20, (10, 2, 3, 5)), (60, (30, 6, 9, 15))])
def test_every_split_gets_patients(count, expected):
    """Half of the patients train; no split is empty."""
    splits = phantom.splits(count)
    assert tuple(splits.count(name) for name in ("train", "calib", "val", "test")) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": "b-line"}, "no label 'b-line'"),
        ({"patient": -1}, "patient"),
        ({"index": -1}, "index"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_the_phantom_does_not_have_is_refused(arguments, message):
    """A wrong argument is one clear sentence."""
    good = {"label": "b-lines", "patient": 0, "index": 0, "seed": 0}
    with pytest.raises(DataError, match=message):
        phantom.frame(**(good | arguments))


@pytest.mark.parametrize(
    "change", [{"rows": 0}, {"columns": 9999}, {"lines": 1}, {"samples": 1}, {"frequency_mhz": 0.0}, {"dynamic_range_db": 1.0}]
)
def test_a_scanner_that_cannot_be_is_refused(change):
    """Limits of the specification are checked when it is made."""
    with pytest.raises(DataError, match="between"):
        PhantomSpec(**change)


def test_a_data_set_too_small_for_its_splits_is_refused(tmp_path):
    """Nothing is written for it."""
    with pytest.raises(DataError, match="at least 4 patients"):
        phantom.write_dataset(tmp_path / "set", patients_per_class=3, frames_per_patient=1, seed=0)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("blocker", ["file in the folder", "file instead of the folder", "file instead of its parent"])
def test_a_folder_that_is_taken_is_refused(tmp_path, blocker):
    """Frames are never mixed with other files, and a low-level error does not leak."""
    folder = tmp_path / "a" / "set"
    if blocker == "file in the folder":
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
    else:
        place = folder if blocker == "file instead of the folder" else folder.parent
        place.parent.mkdir(exist_ok=True)
        place.write_text("mine")
    with pytest.raises(OutputError):
        phantom.write_dataset(folder, patients_per_class=4, frames_per_patient=1, seed=0, spec=SMALL)
