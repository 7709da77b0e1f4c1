"""Building blocks of a page: escaping, self-containment, pictures, tables."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgekit.errors import DataError
from edgekit.report import html

HOSTILE = "<script>alert('x')</script> & \"quoted\" <img src=x onerror=y>"


class Reader(HTMLParser):
    """Collects tags and texts, and checks that tags nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.attributes, self._open = [], [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "br", "hr"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@given(st.text(alphabet=st.characters(exclude_categories=("Cc", "Cs"))))
def test_any_text_comes_back_as_the_same_text(text):
    """Neither as a child nor as an attribute can a text become markup."""
    read = Reader(html.element("p", text, title=text).text)
    assert read.tags == ["p"]
    assert "".join(read.texts) == text
    assert read.attributes == [("title", text)]


@pytest.mark.parametrize(
    "build",
    [
        lambda text: html.section(text, text, note=text),
        lambda text: html.callout("bad", text),
        lambda text: html.figures([html.Figure(label=text, value=text, unit=text, detail=text)]),
        lambda text: html.table([text, text], [[text, text]], caption=text),
        lambda text: html.key_values([(text, text)]),
        lambda text: html.confusion_table([text], np.array([[3]]), caption=text),
        lambda text: html.thumbnail(np.zeros((4, 4), np.uint8), caption=text),
        lambda text: html.page(text, text, subtitle=text, footer=text),
    ],
    ids=["section", "callout", "figures", "table", "key_values", "confusion", "thumbnail", "page"],
)
def test_no_block_lets_a_hostile_text_through(build):
    """The text is shown as it is, and no tag of it comes alive."""
    read = Reader(str(build(HOSTILE)))
    assert "script" not in read.tags
    assert not [value for name, value in read.attributes if name.startswith("on")]
    assert any(HOSTILE in text for text in read.texts)


def test_a_page_refers_to_nothing_outside_itself():
    """No script, no link, no address but data URIs, and a policy that forbids the rest."""
    text = html.page("Title", html.thumbnail(np.zeros((4, 4), np.uint8), caption="c"), subtitle="s", footer="f")
    read = Reader(text)
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert not {"script", "link", "iframe", "object"} & set(read.tags)
    assert not re.findall(r"https?:|url\(|@import", text)
    assert all(value.startswith("data:image/png;base64,") for name, value in read.attributes if name in ("src", "href"))
    assert any(name == "content" and "default-src 'none'" in value for name, value in read.attributes)


def test_a_style_for_the_dark_and_for_paper_is_there():
    """Both modes define the same colours, so that none is missing in the dark."""
    light, dark, paper = re.findall(r":root \{([^}]*)\}", html.STYLE)
    names = [set(re.findall(r"(--[\w-]+):", block)) for block in (light, dark, paper)]
    assert names[0] == names[1] == names[2]
    assert set(re.findall(r"var\((--[\w-]+)\)", html.STYLE)) - names[0] <= {"--c", "--share"}


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 3)])
def test_a_picture_is_embedded_without_loss(shape):
    """The data URI decodes to the same pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    kind, _, data = html.png_data_uri(pixels).partition(",")
    assert kind == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), pixels)


@pytest.mark.parametrize(("longest", "size"), [(20, (20, 10)), (400, (80, 40))])
def test_a_thumbnail_keeps_its_aspect_and_is_never_enlarged(longest, size):
    """Its longest side is what was asked for, at most its own."""
    data = html.png_data_uri(np.zeros((40, 80), np.uint8), longest_side=longest).partition(",")[2]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == size


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8)],
    ids=["float", "RGBA", "1-D", "empty"],
)
def test_what_is_no_picture_is_refused(pixels):
    """The message names type and shape."""
    with pytest.raises(DataError, match="a picture is uint8"):
        html.png_data_uri(pixels)


def test_a_confusion_matrix_shows_counts_and_shares_of_the_truth():
    """Rows are the truth; a row without frames has no shares; the diagonal is told apart."""
    text = html.confusion_table(["a", "b"], np.array([[3, 1], [0, 0]])).text
    assert re.findall(r'<td class="(\w+)" style="--share:(\d+)%">(\d+)<span class="share">([^<]+)', text) == [
        ("right", "75", "3", "75%"),
        ("wrong", "25", "1", "25%"),
        ("wrong", "0", "0", html.UNKNOWN),
        ("right", "0", "0", html.UNKNOWN),
    ]


def test_a_confusion_matrix_must_fit_its_labels():
    """Two labels and three columns are an error."""
    with pytest.raises(DataError, match=r"2 labels cannot have the shape \(2, 3\)"):
        html.confusion_table(["a", "b"], np.zeros((2, 3), int))


def test_an_unknown_figure_has_no_unit():
    """A dash with ms behind it would read as a number."""
    assert "ms" not in html.figures([html.Figure(label="p", value=html.UNKNOWN, unit="ms")]).text
    assert "ms" in html.figures([html.Figure(label="p", value="3", unit="ms")]).text
