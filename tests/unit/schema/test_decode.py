"""The strict decoder: what it takes, what it refuses, and what its messages say."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import pytest

from edgekit.errors import BundleError, CatalogError
from edgekit.schema.decode import MAX_DEPTH, MAX_MESSAGE, decode, encode


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    side: int
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    text: str = ""
    count: int = 0
    share: float = 0.0
    flag: bool = False
    mode: Literal["a", "bb"] = "a"
    level: Literal[1, 2] = 1
    maybe: str | None = None
    many: tuple[int, ...] = ()
    pair: tuple[int, float] = (0, 0.0)
    table: dict[str, float] = dataclasses.field(default_factory=dict)
    anything: object = None
    part: Part | None = None
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"count must not be negative: {self.count}")


def whole(**table):
    return decode(Whole, table, where="file.toml", error=CatalogError)


VALUES = {
    "text": ("text", "x", "x"),
    "integer": ("count", 3, 3),
    "float": ("share", 0.5, 0.5),
    "integer-where-a-float-is-asked": ("share", 2, 2.0),
    "truth": ("flag", True, True),
    "choice": ("mode", "bb", "bb"),
    "number-choice": ("level", 2, 2),
    "optional": ("maybe", "x", "x"),
    "optional-none": ("maybe", None, None),
    "list": ("many", [1, 2], (1, 2)),
    "empty-list": ("many", [], ()),
    "fixed-list": ("pair", [1, 2], (1, 2.0)),
    "table": ("table", {"k": 1}, {"k": 1.0}),
    "anything": ("anything", {"a": [1, "x", None, True, 0.5]}, {"a": [1, "x", None, True, 0.5]}),
    "dataclass": ("part", {"side": 1}, Part(side=1)),
    "list-of-dataclasses": ("parts", [{"side": 1, "note": "n"}], (Part(side=1, note="n"),)),
}


@pytest.mark.parametrize(("field", "given", "expected"), VALUES.values(), ids=VALUES)
def test_each_kind_of_field_takes_its_value(field, given, expected):
    """A value of the stated type comes out with that type, so that 2 for a float is 2.0."""
    found = getattr(whole(**{field: given}), field)
    assert found == expected
    assert type(found) is type(expected)


WRONG = {
    "number-for-text": ({"text": 1}, r"file\.toml: text: expected str, found int 1"),
    "none-for-text": ({"text": None}, r"text: expected str, found NoneType None"),
    "truth-for-integer": ({"count": True}, r"count: expected int, found bool True"),
    "float-for-integer": ({"count": 1.0}, r"count: expected int, found float 1\.0"),
    "truth-for-float": ({"share": True}, r"share: expected float, found bool True"),
    "text-for-float": ({"share": "1"}, r"share: expected float, found str '1'"),
    "integer-for-truth": ({"flag": 1}, r"flag: expected bool, found int 1"),
    "truth-for-number-choice": ({"level": True}, r"level: bool True is not known here"),
    "float-for-number-choice": ({"level": 1.0}, r"level: float 1\.0 is not known here"),
    "unknown-choice": ({"mode": "b"}, r"mode: str 'b' is not known here"),
    "list-for-choice": ({"mode": ["a"]}, r"mode: list of 1 is not known here"),
    "text-for-list": ({"many": "12"}, r"many: expected a list, found str '12'"),
    "bytes-for-list": ({"many": b"12"}, r"many: expected a list"),
    "table-for-list": ({"many": {}}, r"many: expected a list, found dict of 0"),
    "wrong-item": ({"many": [1, "2"]}, r"many\[1\]: expected int, found str '2'"),
    "too-short-pair": ({"pair": [1]}, r"pair: expected 2 values, found 1"),
    "too-long-pair": ({"pair": [1, 2.0, 3]}, r"pair: expected 2 values, found 3"),
    "list-for-table": ({"table": []}, r"table: expected a table, found list of 0"),
    "wrong-entry": ({"table": {"k": "x"}}, r"table\.k: expected float, found str 'x'"),
    "list-for-dataclass": ({"part": [1]}, r"part: expected a table, found list of 1"),
    "missing-key": ({"part": {}}, r"part: the key 'side' is missing"),
    "unknown-inner-key": ({"parts": [{"side": 1}, {"side": 2, "nota": ""}]}, r"parts\[1\]\.nota: unknown key"),
    "refused-by-the-dataclass": ({"count": -1}, r"file\.toml: count must not be negative: -1"),
    "not-a-number": ({"share": math.nan}, r"share: expected a finite number, found nan"),
    "infinite": ({"share": -math.inf}, r"share: expected a finite number, found -inf"),
    "integer-beyond-a-float": ({"share": 10**400}, r"share: expected a finite number, found inf"),
    "negative-integer-beyond-a-float": ({"share": -(10**400)}, r"share: expected a finite number, found -inf"),
    "integer-beyond-64-bits": ({"count": 1 << 64}, r"count: expected an integer of at most 64 bits"),
    "integer-that-python-will-not-print": ({"text": 1 << 100_000}, r"text: expected str, found int of 100001 bits"),
    "anything-not-a-number": ({"anything": [math.nan]}, r"anything\[0\]: expected a finite number"),
    "anything-foreign": ({"anything": {"a": object()}}, r"anything\.a: expected a table, a list, a text"),
    "anything-huge": ({"anything": 1 << 100_000}, r"anything: expected an integer of at most 64 bits, found int of 100001 bits"),
}


@pytest.mark.parametrize(("table", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_named_with_its_path(table, message):
    """The message says file, path, what was expected and what was found; nothing is coerced."""
    with pytest.raises(CatalogError, match=message):
        whole(**table)


@pytest.mark.parametrize("table", [[], "text", 3, None])
def test_a_document_that_is_no_table_is_refused(table):
    """The outermost value has no path; the file is named."""
    with pytest.raises(BundleError, match=r"^manifest\.json: expected a table, found "):
        decode(Whole, table, where="manifest.json", error=BundleError)


def test_an_unknown_key_names_the_nearest():
    """A misspelt key must not silently mean the default."""
    with pytest.raises(CatalogError, match=r"file\.toml: shar: unknown key") as caught:
        whole(shar=1.0)
    assert caught.value.hint.startswith("did you mean 'share'? available: anything, count")


def test_an_unknown_choice_names_the_nearest():
    """The hint lists what is known."""
    with pytest.raises(CatalogError) as caught:
        whole(mode="b")
    assert caught.value.hint == "did you mean 'bb'? available: a, bb"


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


LARGE = {
    "long-text": {"count": "x" * 1_000_000},
    "long-list": {"count": list(range(1_000_000))},
    "large-table": {"count": {str(key): key for key in range(100_000)}},
    "deep-list": {"count": nested(50_000)},
    "deep-list-as-anything": {"anything": nested(50_000)},
    "long-key": {"k" * 1_000_000: 1},
    "long-inner-key": {"table": {"k" * 1_000_000: "x"}},
    "long-choice": {"mode": "a" * 1_000_000},
}


@pytest.mark.parametrize("table", LARGE.values(), ids=LARGE)
def test_a_large_or_deep_value_gives_a_short_message(table):
    """An untrusted file must not fill the terminal or the stack with what it got wrong."""
    with pytest.raises(CatalogError) as caught:
        whole(**table)
    assert len(caught.value.message) <= MAX_MESSAGE + 200
    assert len(caught.value.hint) <= 400


def test_a_long_complaint_of_the_dataclass_is_cut():
    """`__post_init__` may quote values without counting their characters."""

    @dataclasses.dataclass(frozen=True)
    class Quoting:
        names: tuple[str, ...]

        def __post_init__(self) -> None:
            raise ValueError(f"not these: {list(self.names)}")

    with pytest.raises(CatalogError, match="not these") as caught:
        decode(Quoting, {"names": ["name"] * 10_000}, where="file.toml", error=CatalogError)
    assert len(caught.value.message) < MAX_MESSAGE + 50


def test_the_deepest_plain_value_is_taken():
    """The limit on depth is where it says it is."""
    assert encode(whole(anything=nested(MAX_DEPTH + 1)).anything) == nested(MAX_DEPTH + 1)
    with pytest.raises(CatalogError, match="nested deeper"):
        whole(anything=nested(MAX_DEPTH + 2))


def test_what_is_decoded_is_encoded_to_the_same_table():
    """Every field comes back, defaults and None included, as plain lists and tables."""
    table = {"text": "x", "many": [1, 2], "part": {"side": 1}, "parts": [{"side": 2, "note": "n"}], "table": {"k": 1.5}}
    encoded = encode(whole(**table))
    assert encoded == {
        "text": "x",
        "count": 0,
        "share": 0.0,
        "flag": False,
        "mode": "a",
        "level": 1,
        "maybe": None,
        "many": [1, 2],
        "pair": [0, 0.0],
        "table": {"k": 1.5},
        "anything": None,
        "part": {"side": 1, "note": ""},
        "parts": [{"side": 2, "note": "n"}],
    }
    assert whole(**encoded) == whole(**table)
