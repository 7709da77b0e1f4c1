"""Data manifests: what is read, and everything that is refused with its line."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from edgekit.errors import DataError
from edgekit.evaluation.dataset import load_manifest, require_splits, truth_matrix
from edgekit.schema.data import Columns
from edgekit.schema.model_io import OutputSpec

MULTICLASS = OutputSpec(labels=("benign", "malignant", "normal"), task="multiclass", positive="malignant")
BINARY = OutputSpec(labels=("normal", "pneumonia"), task="binary", positive="pneumonia")
MULTILABEL = OutputSpec(labels=("Effusion", "Edema", "Mass"), task="multilabel")
HEADER = "file,label,split,patient_or_video_id\n"
GOOD = HEADER + "a.png,benign,train,p1\nb.png,malignant,test,p2\n"


def write(folder, text, *, files=("a.png", "b.png", "c.png", "d.png"), encoding="utf-8"):
    """A manifest beside frames (a manifest reads no pixels)."""
    for name in files:
        (folder / name).write_bytes(b"frame")
    path = folder / "manifest.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def test_rows_become_samples(tmp_path):
    """Paths are relative to the manifest, other columns are kept, and the digest is that of the bytes."""
    text = "view,file,label,split,pid,m\nPA,a.png,benign,train,p1,\nAP,b.png, malignant ,test,p2,c.png\n"
    path = write(tmp_path, text)
    manifest = load_manifest(path, Columns(group="pid", mask="m"), MULTICLASS)
    first, second = manifest.samples
    assert (first.path, first.labels, first.split, first.group, first.mask, first.line) == (
        tmp_path / "a.png",
        ("benign",),
        "train",
        "p1",
        None,
        2,
    )
    assert (second.labels, second.mask, dict(second.extra)) == (("malignant",), tmp_path / "c.png", {"view": "AP"})
    assert manifest.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert manifest.split("test") == (second,)


def test_other_splits_are_counted_and_not_checked(tmp_path):
    """A row of another split may carry an unknown label, a group of a used split and a missing file."""
    manifest = load_manifest(write(tmp_path, GOOD + "gone.png,viral,extra,p1\n"), Columns(), MULTICLASS)
    assert len(manifest.samples) == 2
    assert manifest.ignored == {"extra": 1}


def test_a_split_of_ones_own_can_be_asked_for(tmp_path):
    """A further split is checked like the others once it is used."""
    path = write(tmp_path, GOOD + "c.png,viral,heldout,p3\n")
    with pytest.raises(DataError, match=r"line 4: the label 'viral'"):
        load_manifest(path, Columns(), MULTICLASS, splits=("test", "heldout"))


@pytest.mark.parametrize("encode", ["utf-8-sig", "utf-8"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_spreadsheet_exports_are_read(tmp_path, encode, ending):
    """A UTF-8 byte order mark, Windows line ends and blank lines change nothing."""
    manifest = load_manifest(write(tmp_path, (GOOD + "\n,,,\n").replace("\n", ending), encoding=encode), Columns(), MULTICLASS)
    assert [sample.labels for sample in manifest.samples] == [("benign",), ("malignant",)]


def test_absolute_paths_and_parents_are_allowed(tmp_path):
    """The manifest is the user's own, so it may point anywhere."""
    (tmp_path / "inside").mkdir()
    write(tmp_path, "")
    path = tmp_path / "inside" / "m.csv"
    path.write_text(f"{HEADER}../a.png,benign,train,p1\n{tmp_path}/b.png,normal,train,p2\n")
    assert [sample.path.resolve() for sample in load_manifest(path, Columns(), MULTICLASS).samples] == [
        tmp_path / "a.png",
        tmp_path / "b.png",
    ]


WRONG = {
    "empty": ("", "is empty"),
    "no-rows": (HEADER, "no rows"),
    "missing-column": ("file,label,split,patient_or_video\na.png,benign,train,p1\n", "line 1: the column 'patient_or_video_id' is missing"),
    "semicolons": ("file;label;split;group\na.png;benign;train;p1\n", "'file' is missing"),
    "repeated-column": ("file,label,split,patient_or_video_id,label\n", "the column 'label' is there twice"),
    "unknown-label": (GOOD + "c.png,malignent,train,p3\n", "line 4: the label 'malignent' is not known"),
    "other-case": (GOOD + "c.png,Benign,train,p3\n", "line 4: the label 'Benign'"),
    "two-labels": (GOOD + "c.png,benign;normal,train,p3\n", "line 4: the label 'benign;normal'"),
    "empty-label": (GOOD + "c.png,,train,p3\n", "line 4: the cell of column 'label' is empty"),
    "empty-file": (GOOD + ",benign,train,p3\n", "line 4: the cell of column 'file' is empty"),
    "empty-group": (GOOD + "c.png,benign,train, \n", "line 4: the cell of column 'patient_or_video_id' is empty"),
    "empty-split": (GOOD + "c.png,benign,,p3\n", "line 4: the cell of column 'split' is empty"),
    "split-case": (GOOD + "c.png,benign,Train,p3\n", "line 4: the split 'Train' is not known"),
    "split-synonym": (GOOD + "c.png,benign,validation,p3\n", "line 4: the split 'validation' is not known"),
    "repeated-file": (GOOD + "./a.png,benign,train,p1\n", r"line 4: the file './a.png' is already on line 2"),
    "group-in-two-splits": (GOOD + "c.png,benign,val,p2\n", r"line 4: the group 'p2' is in two splits: 'test' \(line 3\) and 'val'"),
    "group-spaces": (GOOD + "c.png,benign,val, p2 \n", "the group 'p2' is in two splits"),
    "missing-frames": (
        GOOD + "x.png,benign,train,p3\ny.png,benign,train,p3\n",
        "2 of 4 frame files are not there, the first on line 4: .*x.png",
    ),
    "folder-as-frame": (GOOD + ".,benign,train,p3\n", "1 of 3 frame files"),
    "long-name": (GOOD + "x" * 300 + ".png,benign,train,p3\n", "1 of 3 frame files"),
    "short-row": (GOOD + "c.png,benign,train\n", "line 4: 3 cells where the header has 4"),
    "long-row": (GOOD + "c.png,benign,train,p3,more\n", "line 4: 5 cells"),
    "open-quote": (GOOD + '"c.png,benign,train,p3\n', "line 4: not valid CSV"),
    "long-cell": (GOOD + "c" * 200_000 + ",benign,train,p3\n", "line 4: not valid CSV: field larger"),
    "nul": (GOOD + "c\0.png,benign,train,p3\n", "line 4: a NUL byte"),
    "latin-1": ((GOOD + "c\xe9.png,benign,train,p3\n").encode("latin-1"), r"line 4: not UTF-8 \(byte 0xe9\)"),
    "utf-16": (GOOD.encode("utf-16"), "UTF-16"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_faults_are_named_with_their_line(tmp_path, text, message):
    """Every fault is a DataError that names the file, the line and what is wrong."""
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        load_manifest(path, Columns(), MULTICLASS)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("fault", "hint"),
    [("missing-column", "'patient_or_video'"), ("unknown-label", "'malignant'"), ("semicolons", "commas"), ("split-synonym", "'val'")],
)
def test_hints_name_the_nearest(tmp_path, fault, hint):
    """A misspelling is answered with what was probably meant."""
    with pytest.raises(DataError) as caught:
        load_manifest(write(tmp_path, WRONG[fault][0]), Columns(), MULTICLASS)
    assert hint in caught.value.hint


def test_lines_count_from_the_start_of_a_record(tmp_path):
    """A quoted cell with line breaks does not shift the line numbers."""
    text = 'file,label,split,patient_or_video_id,note\na.png,benign,train,p1,"two\nlines"\nb.png,oops,train,p2,x\n'
    with pytest.raises(DataError, match="line 4: the label 'oops'"):
        load_manifest(write(tmp_path, text), Columns(), MULTICLASS)


@pytest.mark.parametrize("name", ["none.csv", ".", "no\0name.csv"])
def test_an_unreadable_manifest_is_a_data_error(tmp_path, name):
    """A manifest that is not there, is a folder or has an impossible name is one clear sentence."""
    with pytest.raises(DataError, match="cannot read the data manifest"):
        load_manifest(tmp_path / name, Columns(), MULTICLASS)


def test_a_missing_mask_is_refused(tmp_path):
    """A mask that the manifest names must be there."""
    path = write(tmp_path, "file,label,split,patient_or_video_id,mask\na.png,benign,train,p1,gone.png\n")
    with pytest.raises(DataError, match="1 of 1 mask files"):
        load_manifest(path, Columns(mask="mask"), MULTICLASS)


def test_multilabel_cells(tmp_path):
    """Several labels are separated by ';' or '|', none is an empty cell, and the order is that of the output."""
    path = write(tmp_path, HEADER + "a.png,Mass; Effusion,train,p1\nb.png,,train,p2\nc.png,Edema|Mass,train,p3\n")
    samples = load_manifest(path, Columns(), MULTILABEL).samples
    assert [sample.labels for sample in samples] == [("Effusion", "Mass"), (), ("Edema", "Mass")]
    assert np.array_equal(truth_matrix(samples, MULTILABEL), [[1, 0, 1], [0, 0, 0], [0, 1, 1]])


@pytest.mark.parametrize(("cell", "message"), [("Mass;Mass", "repeated"), ("Mass;;Edema", "''"), ("No Finding", "'No Finding'")])
def test_multilabel_faults(tmp_path, cell, message):
    """A label twice, an empty one between separators and an unknown one are refused."""
    with pytest.raises(DataError, match=f"line 2: .*{message}"):
        load_manifest(write(tmp_path, HEADER + f"a.png,{cell},train,p1\n"), Columns(), MULTILABEL)


def test_a_label_with_a_separator_is_refused(tmp_path):
    """A multilabel name that contains a separator could never be read back."""
    output = OutputSpec(labels=("a;b", "c"), task="multilabel")
    with pytest.raises(DataError, match="separates labels"):
        load_manifest(write(tmp_path, GOOD), Columns(), output)


SPLIT_FAULTS = {
    "empty": (BINARY, "a.png,normal,train,p1\n", "no row has the split 'test'"),
    "single-class": (BINARY, "a.png,normal,test,p1\nb.png,normal,test,p2\n", "'test' .2 frames. has no frame of 'pneumonia'"),
    "absent-class": (MULTICLASS, "a.png,benign,test,p1\nb.png,malignant,test,p2\n", "no frame of 'normal'"),
    "multilabel-all-or-none": (MULTILABEL, "a.png,Mass,test,p1\nb.png,Mass,test,p2\n", "no label that is both"),
}


@pytest.mark.parametrize(("output", "rows", "message"), SPLIT_FAULTS.values(), ids=SPLIT_FAULTS)
def test_splits_on_which_nothing_can_be_measured_are_refused(tmp_path, output, rows, message):
    """An empty or one-sided split is refused by name before anything is computed."""
    manifest = load_manifest(write(tmp_path, HEADER + rows), Columns(), output)
    with pytest.raises(DataError, match=message):
        require_splits(manifest, ["test"], output)


def test_a_usable_split_passes(tmp_path):
    """One frame of each class, or one multilabel label that is present and absent, is enough to be measured."""
    require_splits(
        load_manifest(write(tmp_path, HEADER + "a.png,normal,val,1\nb.png,pneumonia,val,2\n"), Columns(), BINARY), ["val"], BINARY
    )
    require_splits(load_manifest(write(tmp_path, HEADER + "a.png,Mass,val,1\nb.png,,val,2\n"), Columns(), MULTILABEL), ["val"], MULTILABEL)


@pytest.mark.parametrize("table", [{"file": ""}, {"group": "label"}, {"mask": "file"}])
def test_columns_must_be_distinct(table):
    """Two roles in one column would silently make every frame its own label."""
    with pytest.raises(ValueError, match="column"):
        Columns(**table)


def test_a_group_in_two_splits_is_found_where_one_is_used(tmp_path):
    """A patient the model may have been trained on is no test patient, also when only the test rows are read."""
    text = HEADER + "a.png,benign,train,p1\nb.png,benign,test,p1\nc.png,malignant,test,p2\n"
    path = write(tmp_path, text)
    with pytest.raises(DataError, match="the group 'p1' is in two splits: 'train'"):
        load_manifest(path, Columns(), MULTICLASS, splits=("test",))
