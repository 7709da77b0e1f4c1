"""Class folders become a manifest whose splits keep groups whole and classes in proportion."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import DataError, OutputError
from edgekit.evaluation.dataset import SPLITS, load_manifest
from edgekit.evaluation.grouping import near_duplicate_pairs
from edgekit.evaluation.layout import scan_folder
from edgekit.evaluation.splits import DEFAULT_FRACTIONS, PlannedRow, SplitOptions, assign_groups, plan_splits, write_manifest
from edgekit.schema.data import Columns
from edgekit.schema.model_io import OutputSpec

OUTPUT = OutputSpec(labels=("benign", "malignant"), task="binary", positive="malignant")


def fill(root, *paths, contents=None):
    """Frames whose bytes differ, unless `contents` says otherwise."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((contents or f"{root.name}/{path}").encode())


def class_folders(root, *, frames=20, inside=""):
    for label in ("benign", "malignant"):
        fill(root, *(f"{label}/{inside.format(i // 2)}{label[0]}{i:03}.png" for i in range(frames)))
    return root


def noise(path):
    """A thumbnail that is like no other: noise seeded by the file's bytes."""
    return np.random.default_rng(list(path.read_bytes())).normal(size=(32, 32)).astype(np.float32)


def never(path):
    raise AssertionError(f"{path}: the groups are known, no frame has to be read")


def splits_by_group(plan):
    found = defaultdict(set)
    for row in plan.rows:
        found[row.group].add(row.split)
    return found


def test_fractions_are_kept_in_every_class(tmp_path):
    """With one frame a group the shares are those asked for, to the frame."""
    plan = plan_splits(class_folders(tmp_path, frames=100), thumbnail=noise)
    for split, share in DEFAULT_FRACTIONS.items():
        assert plan.counts()[split] == {"benign": pytest.approx(100 * share, abs=1), "malignant": pytest.approx(100 * share, abs=1)}
    assert plan.grouping.source == "likeness"
    assert "No patient information found" in plan.grouping.describe()


def test_subfolders_are_patients(tmp_path):
    """Frames of one sub-folder stay together, also under two classes, and no frame is read for it."""
    plan = plan_splits(class_folders(tmp_path, frames=40, inside="p{}/"), thumbnail=never)
    assert plan.grouping.source == "subfolder"
    assert len(splits_by_group(plan)) == 20
    assert all(len(splits) == 1 for splits in splits_by_group(plan).values())


def test_a_pattern_names_the_patient(tmp_path):
    """The one capture group of the pattern is the group."""
    class_folders(tmp_path, frames=40)
    plan = plan_splits(tmp_path, thumbnail=never, options=SplitOptions(pattern=r"/([bm]\d\d)\d\.png$"))
    assert set(splits_by_group(plan)) == {f"{c}0{i}" for c in "bm" for i in range(4)}
    assert all(len(splits) == 1 for splits in splits_by_group(plan).values())


def test_the_plan_depends_on_the_seed_only(tmp_path):
    """The same folder and seed give the same plan; another seed gives another."""
    class_folders(tmp_path)
    plans = [plan_splits(tmp_path, thumbnail=noise, options=SplitOptions(seed=seed)) for seed in (0, 0, 1)]
    assert plans[0] == plans[1]
    assert plans[0].rows != plans[2].rows


def test_the_plan_is_the_same_with_every_version(tmp_path):
    """The order comes from SHA-256, not from a random generator that may change; this is the plan of seed 0, for good."""
    counts = {f"g{i}": {"x": 1} for i in range(8)}
    assert assign_groups(counts, DEFAULT_FRACTIONS, seed=0) == {
        **dict.fromkeys(["g0", "g1", "g3", "g5", "g7"], "train"),
        "g6": "calib",
        "g4": "val",
        "g2": "test",
    }


def test_identical_and_alike_frames_are_one_group(tmp_path):
    """Byte-identical files and near-duplicates (also in chains) are joined, and nothing else is."""
    class_folders(tmp_path)
    fill(tmp_path, "benign/copy.png", contents=(tmp_path / "benign/b000.png").read_text())
    base = {"b000": 0.0, "b001": 0.14, "b002": 0.28}

    def thumbnail(path):
        if path.stem not in base:
            return noise(path)
        random = np.random.default_rng(0)
        first, second = random.normal(size=(2, 32, 32))
        return (np.cos(base[path.stem]) * first + np.sin(base[path.stem]) * second).astype(np.float32)

    plan = plan_splits(tmp_path, thumbnail=thumbnail)
    groups = Counter(row.group for row in plan.rows)
    assert groups["benign/b000.png"] == 4
    assert set(groups.values()) == {1, 4}
    assert (plan.grouping.identical, plan.grouping.near_duplicates) == (1, 2)


def test_near_duplicates_agree_with_corrcoef_across_blocks():
    """The blocked product finds exactly the pairs above 0.98; a thumbnail of one colour is like none."""
    random = np.random.default_rng(3)
    images = random.normal(size=(1500, 32, 32)).astype(np.float32)
    for copy, source, noise_level in ((5, 2, 0.15), (1400, 7, 0.1), (1450, 1200, 0.3), (1499, 0, 0.0)):
        images[copy] = 3 * images[source] + 10 + noise_level * 3 * random.normal(size=(32, 32))
    images[20:23] = 7.0
    with np.errstate(invalid="ignore"):
        expected = {(i, j) for i, j in np.argwhere(np.corrcoef(images.reshape(1500, -1)) > 0.98).tolist() if i < j}
    assert expected == {(2, 5), (7, 1400), (0, 1499)}
    assert set(near_duplicate_pairs(list(images))) == expected


def test_one_image_under_two_patients_joins_them(tmp_path):
    """Nobody can say whose image it is, so both patients go into one split."""
    class_folders(tmp_path, frames=40, inside="p{}/")
    fill(tmp_path, "benign/p1/again.png", contents=(tmp_path / "benign/p0/b000.png").read_text())
    plan = plan_splits(tmp_path, thumbnail=never)
    groups = {row.path.relative_to(tmp_path).parts[1]: row.group for row in plan.rows}
    assert groups["p0"] == groups["p1"] != groups["p2"]


def test_given_splits_are_kept(tmp_path):
    """Given test and valid folders stay as they came; only calib is taken from train."""
    for split, frames in (("train", 20), ("valid", 4), ("test", 6)):
        class_folders(tmp_path / split, frames=frames)
    plan = plan_splits(tmp_path, thumbnail=noise)
    assert plan.given_splits == ("train", "val", "test")
    counts = plan.counts()
    assert (counts["val"]["benign"], counts["test"]["benign"]) == (4, 6)
    assert (counts["train"]["benign"], counts["calib"]["benign"]) == (16, 4)  # 0.55 : 0.15 of 20
    for row in plan.rows:
        given = {"valid": "val"}.get(row.path.relative_to(tmp_path).parts[0], row.path.relative_to(tmp_path).parts[0])
        assert row.split == given or (given, row.split) == ("train", "calib")


def test_val_is_taken_from_train_where_it_is_absent(tmp_path):
    """A folder with train and test only gets calib and val from train."""
    for split in ("train", "test"):
        class_folders(tmp_path / split)
    counts = plan_splits(tmp_path, thumbnail=noise).counts()
    assert counts["test"] == {"benign": 20, "malignant": 20}
    for split, share in (("train", 0.55), ("calib", 0.15), ("val", 0.15)):
        assert counts[split]["malignant"] == pytest.approx(20 * share / 0.85, abs=1)


def test_alike_frames_across_given_splits_are_counted(tmp_path):
    """They cannot be joined without moving what was given, so they are reported."""
    for split in ("train", "test"):
        class_folders(tmp_path / split)
    grouping = plan_splits(tmp_path, thumbnail=lambda path: noise(path) if path.stem != "b000" else np.eye(32, dtype=np.float32)).grouping
    assert (grouping.across_splits, grouping.near_duplicates) == (1, 0)


def test_masks_beside_frames_are_no_frames(tmp_path):
    """BUSI keeps x_mask.png beside x.png; a frame whose own name ends so is still a frame."""
    class_folders(tmp_path)
    fill(tmp_path, "benign/b000_mask.png", "benign/b000_mask_1.png", "benign/other_mask.png", "benign/notes.txt", "benign/.hidden.png")
    folder = scan_folder(tmp_path)
    names = {frame.path.name: frame.mask for frame in folder.frames}
    assert names["b000.png"] == tmp_path / "benign/b000_mask.png"
    assert "other_mask.png" in names
    assert not {"b000_mask.png", "b000_mask_1.png", ".hidden.png"} & set(names)
    assert folder.skipped == 2


FAULTS = {
    "no-folder": ([], None, "cannot read the folder"),
    "one-class": (["benign/a.png"], None, "found in 1 class folders"),
    "no-frames": (["benign/a.txt", "malignant/b.txt"], None, "found in 0 class folders"),
    "loose-frame": (["benign/a.png", "malignant/b.png", "c.png"], None, "1 frames beside its class folders"),
    "splits-and-classes": (["train/benign/a.png", "train/malignant/b.png", "benign/c.png"], None, "both split folders"),
    "no-train": (["val/benign/a.png", "test/malignant/b.png"], None, "no train folder"),
    "val-twice": (["train/a/1.png", "val/a/2.png", "valid/b/3.png"], None, "same split"),
    "spaces": (["benign /a.png", "malignant/b.png"], None, "spaces"),
    "half-in-subfolders": (["benign/p1/a.png", "malignant/b.png"], None, "1 are not, the first 'malignant/b.png'"),
    "too-few-groups": (["benign/a.png", "malignant/b.png"], None, "has 1 groups, too few for 4 splits"),
    "pattern-broken": (["benign/a.png", "malignant/b.png"], "(", "not a regular expression"),
    "pattern-two-groups": (["benign/a.png", "malignant/b.png"], "(a)(b)", "2 capture groups"),
    "pattern-no-match": (["benign/a.png", "malignant/b.png"], "/(a)", "no group in 1 of 2 frames, the first 'malignant/b.png'"),
    "group-in-given-splits": (["train/a/p1/1.png", "test/b/p1/2.png"], None, "group 'p1' is in two of the given splits"),
}


@pytest.mark.parametrize(("paths", "pattern", "message"), FAULTS.values(), ids=FAULTS)
def test_folders_that_allow_no_split_are_refused(tmp_path, paths, pattern, message):
    """Each fault is a DataError that says what was found."""
    root = tmp_path / "frames"
    fill(root, *paths)
    with pytest.raises(DataError, match=message):
        plan_splits(root, thumbnail=noise, options=SplitOptions(pattern=pattern))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("benign/x.png", "malignant/y.png"), "two classes"),
        (("train/benign/x.png", "test/benign/y.png", "train/malignant/z.png"), "two splits"),
    ],
)
def test_one_image_in_two_places_is_refused(tmp_path, paths, message):
    """The same bytes with two labels, or in train and test, are a fault of the data."""
    fill(tmp_path, *paths[:2], contents="same")
    fill(tmp_path, *paths[2:])
    with pytest.raises(DataError, match=f"1 images are there twice, in {message}"):
        plan_splits(tmp_path, thumbnail=noise)


def test_a_given_split_without_a_class_is_refused(tmp_path):
    """A test folder without malignant frames cannot prove anything about them."""
    class_folders(tmp_path / "train")
    fill(tmp_path, "test/benign/t1.png")
    with pytest.raises(DataError, match="the split 'test' has no frame of 'malignant'"):
        plan_splits(tmp_path, thumbnail=noise)


@pytest.mark.parametrize(
    "fractions", [{"train": 1.0}, {"train": 0.5, "calib": 0.5, "val": 0.5, "test": 0.5}, {**DEFAULT_FRACTIONS, "test": 0.0}]
)
def test_fractions_are_checked(fractions):
    """All four splits, above 0, summing to 1."""
    with pytest.raises(DataError, match="fractions"):
        SplitOptions(fractions=fractions)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_assignment_keeps_groups_whole_and_classes_everywhere(data):
    """Whatever the groups: each gets one split, and each split gets every class, or the plan is refused."""
    labels = data.draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True))
    counts = {
        f"g{i}": data.draw(st.dictionaries(st.sampled_from(labels), st.integers(1, 30), min_size=1))
        for i in range(data.draw(st.integers(1, 40)))
    }
    present = {label for inside in counts.values() for label in inside}
    try:
        result = assign_groups(counts, DEFAULT_FRACTIONS, seed=data.draw(st.integers(0, 5)))
    except DataError:
        assert any(sum(label in inside for inside in counts.values()) < 12 for label in present)
        return
    assert set(result) == set(counts)
    for label in present:
        assert {result[group] for group in counts if label in counts[group]} == set(SPLITS)


def test_large_groups_do_not_upset_the_shares():
    """Groups of very different sizes still come near the fractions."""
    random = np.random.default_rng(0)
    counts = {f"g{i}": {"a": int(random.integers(1, 15))} for i in range(60)} | {
        f"h{i}": {"b": int(random.integers(1, 15))} for i in range(30)
    }
    result = assign_groups(counts, DEFAULT_FRACTIONS, seed=0)
    for label in "ab":
        total = sum(inside.get(label, 0) for inside in counts.values())
        for split, share in DEFAULT_FRACTIONS.items():
            assert sum(counts[g].get(label, 0) for g in counts if result[g] == split) / total == pytest.approx(share, abs=0.04)


def test_a_written_manifest_reads_back(tmp_path):
    """Names with commas, quotes, spaces and umlauts survive; files elsewhere are absolute; masks come along."""
    root = tmp_path / "frames"
    class_folders(root, frames=8)
    fill(root, 'benign/ä "b", c.png', "benign/b000_mask.png")
    plan = plan_splits(root, thumbnail=noise)
    for path in (root / "manifest.csv", tmp_path / "elsewhere.csv"):
        write_manifest(path, plan.rows)
        manifest = load_manifest(path, Columns(mask="mask"), OUTPUT)
        assert [(s.path.resolve(), s.labels[0], s.split, s.group) for s in manifest.samples] == [
            (row.path, row.label, row.split, row.group) for row in plan.rows
        ]
        assert sum(sample.mask is not None for sample in manifest.samples) == 1
    assert (root / "manifest.csv").read_text("utf-8").splitlines()[1].startswith("benign/")


def test_a_manifest_is_not_overwritten(tmp_path):
    """A manifest that is there stays, unless replacing it is asked for; nothing else is left in the folder."""
    path = tmp_path / "manifest.csv"
    path.write_text("mine")
    rows = [PlannedRow(path=tmp_path / "a.png", label="x", split="train", group="g")]
    with pytest.raises(OutputError, match="not overwritten"):
        write_manifest(path, rows)
    assert path.read_text() == "mine"
    write_manifest(path, rows, force=True)
    assert path.read_text() == "file,label,split,patient_or_video_id\na.png,x,train,g\n"
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.csv"]


def test_an_unwritable_place_is_an_output_error(tmp_path):
    """A folder that is not there is one clear sentence."""
    with pytest.raises(OutputError, match="cannot write"):
        write_manifest(tmp_path / "none" / "manifest.csv", [])


def test_a_name_that_is_no_utf8_is_a_data_error(tmp_path):
    """A file name with stray bytes cannot be written down."""
    row = PlannedRow(path=tmp_path / "a\udcff.png", label="x", split="train", group="g")
    with pytest.raises(DataError, match="UTF-8"):
        write_manifest(tmp_path / "manifest.csv", [row])
    assert not list(tmp_path.iterdir())
