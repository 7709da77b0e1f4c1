"""Building blocks of a self-contained HTML page.

Rules this file keeps:

1. Everything is built by `element`, which escapes every `str`; only `Html`, made by these functions, is taken as markup. A file name, a label or
   a message from a device can therefore never become a tag.
2. A page refers to nothing outside itself: style and charts are inline, pictures are data URIs, and its content security policy forbids the
   rest, scripts included.
3. It reads on a phone, in the dark and on paper: colours are variables, tables scroll by themselves, sections do not break across pages.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekit.errors import DataError
from edgekit.report.style import STYLE

UNKNOWN = "–"
"""Shown for a figure that is not known."""

_VOID = frozenset({"br", "hr", "img", "meta"})
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True)
class Html:
    """Markup that is safe to put into a page as it is."""

    text: str

    def __str__(self) -> str:
        return self.text


Content = Html | str
Attribute = str | float


def element(tag: str, *children: Content, **attributes: Attribute) -> Html:
    """One element with its children.

    Args:
        tag: Name of the element, HTML or SVG.
        children: Texts are escaped, `Html` is not.
        attributes: A trailing underscore is dropped (`class_`), others become hyphens (`stroke_width`); numbers are written with at most two
            decimals; values are escaped.
    """
    written = "".join(f' {_attribute_name(name)}="{_attribute_value(value)}"' for name, value in attributes.items())
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(children).text}</{tag}>")


def join(parts: Iterable[Content]) -> Html:
    """Several pieces one after the other; texts are escaped."""
    return Html("".join(part.text if isinstance(part, Html) else html.escape(part, quote=False) for part in parts))


def page(title: str, *sections: Content, subtitle: str = "", footer: str = "") -> str:
    """A whole document.

    Args:
        title: Heading and title of the window.
        sections: Made by `section` and its like.
        subtitle: One line below the heading.
        footer: One line at the end: what made the page.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(STYLE)),
    )
    heading = element("header", element("h1", title), *([element("p", subtitle, class_="subtitle")] if subtitle else []))
    body = element("body", element("main", heading, *sections, *([element("footer", footer)] if footer else [])))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def section(title: str, *body: Content, note: Content = "") -> Html:
    """A titled part of a page; the note stands small below the title and says what the part shows."""
    noted = [element("p", note, class_="note")] if str(note) else []
    return element("section", element("h2", title), *noted, *body)


def columns(*parts: Content) -> Html:
    """Parts side by side where the page is wide enough."""
    return element("div", *(element("div", part) for part in parts), class_="columns")


def callout(kind: str, text: Content) -> Html:
    """A paragraph that must not be overlooked.

    Args:
        kind: ``"good"``, ``"warning"`` or ``"bad"``; it is also said in words, for who does not see the colour.
        text: One sentence.
    """
    words = {"good": "Good: ", "warning": "Note: ", "bad": "Attention: "}
    return element("p", element("strong", words[kind]), text, class_=f"callout {kind}", role="note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number of the row at the top of a page.

    Attributes:
        label: What it is.
        value: The number; `UNKNOWN` when it is not known.
        unit: Its unit.
        detail: Small line below: the interval, the number of samples, or why it is not known.
    """

    label: str
    value: str
    unit: str = ""
    detail: str = ""


def figures(items: Sequence[Figure]) -> Html:
    """The row of headline numbers."""
    return element("dl", *(_tile(item) for item in items), class_="figures")


def table(header: Sequence[Content], rows: Iterable[Sequence[Content]], *, caption: str = "", numeric: bool = True) -> Html:
    """A table whose first column names the row.

    Args:
        header: Column titles, with units.
        rows: As many cells as there are titles.
        caption: One line above the table.
        numeric: Whether the other columns are numbers (set flush right).
    """
    kind = "number" if numeric else "text"
    head = element("tr", *(element("th", title, scope="col", class_=kind if index else "text") for index, title in enumerate(header)))
    body = [
        element("tr", *(element("td", cell, class_=kind) if index else element("th", cell, scope="row") for index, cell in enumerate(row)))
        for row in rows
    ]
    titled = [element("caption", caption)] if caption else []
    return _scrolling(element("table", *titled, element("thead", head), element("tbody", *body)))


def key_values(pairs: Iterable[tuple[str, Content]]) -> Html:
    """Names and values, one a line."""
    return element("dl", *(join([element("dt", key), element("dd", value)]) for key, value in pairs), class_="facts")


def details(summary: str, *body: Content) -> Html:
    """What most readers need not see: shown on demand, without a script."""
    return element("details", element("summary", summary), *body)


def confusion_table(labels: Sequence[str], counts: NDArray[np.integer], *, caption: str = "") -> Html:
    """A confusion matrix as a table; a cell is shaded by its share of its row.

    Args:
        labels: Names, in the order of both axes.
        counts: int (labels, labels): rows are the truth, columns the answer.
        caption: One line above the table.

    Raises:
        DataError: When the counts are not a square of that many labels.
    """
    if counts.shape != (len(labels), len(labels)):
        raise DataError(f"a confusion matrix of {len(labels)} labels cannot have the shape {counts.shape}")
    top = element(
        "tr", element("th", "truth ╲ answer", scope="col"), *(element("th", label, scope="col", class_="number") for label in labels)
    )
    rows = []
    for index, label in enumerate(labels):
        total = int(counts[index].sum())
        cells = [_confusion_cell(int(count), total, is_right=index == column) for column, count in enumerate(counts[index])]
        rows.append(element("tr", element("th", label, scope="row"), *cells))
    titled = [element("caption", caption)] if caption else []
    return _scrolling(element("table", *titled, element("thead", top), element("tbody", *rows), class_="confusion"))


def png_data_uri(pixels: NDArray[np.uint8], *, longest_side: int | None = None) -> str:
    """A picture as a `data:` URI.

    Args:
        pixels: uint8 (rows, columns) or (rows, columns, 3) in RGB order.
        longest_side: Shrunk to this many pixels (antialiased, aspect ratio kept); None keeps the size. Never enlarged.

    Raises:
        DataError: When the array is no such picture.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3) or 0 in pixels.shape:
        raise DataError(f"a picture is uint8 (rows, columns) or (rows, columns, 3), not {pixels.dtype} {pixels.shape}")
    image = Image.fromarray(pixels)
    if longest_side is not None:
        image.thumbnail((longest_side, longest_side), Image.Resampling.BILINEAR)
    written = io.BytesIO()
    image.save(written, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode("ascii")


def thumbnail(pixels: NDArray[np.uint8], *, caption: str, longest_side: int = 240) -> Html:
    """A small picture with its caption, which is also its alternative text."""
    picture = element("img", src=png_data_uri(pixels, longest_side=longest_side), alt=caption)
    return element("figure", picture, element("figcaption", caption), class_="thumbnail")


def gallery(thumbnails: Iterable[Html]) -> Html:
    """Thumbnails in rows."""
    return element("div", *thumbnails, class_="gallery")


def _tile(item: Figure) -> Html:
    unit = [element("span", f" {item.unit}", class_="unit")] if item.unit and item.value != UNKNOWN else []
    detail = [element("dd", item.detail, class_="detail")] if item.detail else []
    return element("div", element("dt", item.label), element("dd", item.value, *unit, class_="value"), *detail)


def _confusion_cell(count: int, total: int, *, is_right: bool) -> Html:
    share = count / total if total else 0.0
    shown = element("span", f"{share:.0%}" if total else UNKNOWN, class_="share")
    return element("td", str(count), shown, class_="right" if is_right else "wrong", style=f"--share:{100 * share:.0f}%")


def _scrolling(content: Html) -> Html:
    return element("div", content, class_="scroll")


def _attribute_name(name: str) -> str:
    return name.removesuffix("_").replace("_", "-")


def _attribute_value(value: Attribute) -> str:
    if isinstance(value, str):
        return html.escape(value, quote=True)
    # −0.00 is not worth two characters, 1e-7 not worth being seen.
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")
