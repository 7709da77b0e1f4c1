"""A margin beside an overlay: a colour bar with the scale in logit units, and a caption.

Rules this file keeps:

1. Nothing is drawn over the frame. The bar stands in a margin to the right and the caption in one below, so that no anatomy is covered and a pixel of
   the frame keeps its row and column in the picture.
2. The bar is drawn by the code that draws the overlay, with the same options, on dark grey to the left and light grey to the right: it shows the
   colours as they come out on dark and on bright anatomy, lines included.
3. The font is the one that Pillow brings, so that a picture does not depend on what a device has installed. It has the letters of ASCII: accents
   are left out, and another sign becomes a question mark.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgekit.imaging import contours, overlay

_BACKGROUND, _INK = (0, 0, 0), (235, 235, 235)
_DARK, _LIGHT = 32, 208

_LEAST_FONT_PX, _MOST_FONT_PX, _FONT_SHARE = 11, 48, 30
"""Height of the font: a thirtieth of the frame's shorter side, within these limits."""

_LEAST_BAR_ROWS = 3
"""Least height of the bar in heights of the font, for frames that are smaller than that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourBar:
    """What the colours mean.

    Attributes:
        scale: Logit units at full colour.
        options: How the overlay was drawn.
    """

    scale: float
    options: overlay.OverlayOptions


def annotate(picture: NDArray[np.uint8], *, bar: ColourBar | None = None, caption: Sequence[str] = ()) -> NDArray[np.uint8]:
    """Puts a margin beside a picture.

    Args:
        picture: uint8 (rows, columns, 3), RGB.
        bar: The colour bar to the right; None for none.
        caption: Lines of text below.

    Returns:
        uint8 (rows, columns, 3), RGB, at least as large; the picture is its upper left part, bit for bit. It owns its pixels.
    """
    rows, columns = picture.shape[:2]
    font = ImageFont.load_default(min(max(min(rows, columns) // _FONT_SHARE, _LEAST_FONT_PX), _MOST_FONT_PX))
    parts = [picture] if bar is None else [picture, _bar(_as_on(picture, bar), rows, font)]
    upper = _beside(parts)
    if not caption:
        return upper
    return _above(upper, _text(caption, font))


def _as_on(picture: NDArray[np.uint8], bar: ColourBar) -> ColourBar:
    """The bar with lines as wide as the picture's; by its own size they would be thinner."""
    line_px = bar.options.line_px or contours.width_px(picture.shape)
    return replace(bar, options=replace(bar.options, line_px=line_px))


def _bar(bar: ColourBar, rows: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> NDArray[np.uint8]:
    """The bar with its numbers, uint8 (at least `rows`, columns, 3)."""
    unit = _height(font)
    rows = max(rows, (_LEAST_BAR_ROWS + 3) * unit)
    lowest = -bar.scale if bar.options.is_signed else 0.0
    numbers = {f"{value:+.3g}" if value else "0": value for value in (bar.scale, (bar.scale + lowest) / 2, lowest)}
    name = "logit"
    width = max(_width(text, font) for text in (*numbers, name))
    canvas = Image.new("RGB", (3 * unit + width, rows), _BACKGROUND)
    top, length = 2 * unit, rows - 3 * unit
    canvas.paste(Image.fromarray(_ramp(bar, length, unit, lowest)), (unit, top))
    pen = ImageDraw.Draw(canvas)
    pen.text((unit, unit // 3), name, fill=_INK, font=font)
    for text, value in numbers.items():
        middle = top + (bar.scale - value) / (bar.scale - lowest) * (length - 1)
        pen.text((2 * unit + unit // 2, middle), text, fill=_INK, font=font, anchor="lm")
    return np.asarray(canvas)


def _ramp(bar: ColourBar, rows: int, columns: int, lowest: float) -> NDArray[np.uint8]:
    values = np.linspace(bar.scale, lowest, rows, dtype=np.float32)[:, None]
    grey = np.full((rows, columns), _DARK, dtype=np.uint8)
    grey[:, columns // 2 :] = _LIGHT
    return overlay.render(grey, values, box=(0.0, 0.0, float(columns), float(rows)), scale=bar.scale, options=bar.options)


def _text(lines: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> NDArray[np.uint8]:
    """Lines below each other, uint8 (rows, columns, 3)."""
    unit = _height(font)
    shown = [_ascii(line) for line in lines]
    canvas = Image.new("RGB", (unit + max(_width(line, font) for line in shown), unit * (3 * len(shown) + 1) // 2), _BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for index, line in enumerate(shown):
        pen.text((unit // 2, unit // 2 + index * unit * 3 // 2), line, fill=_INK, font=font)
    return np.asarray(canvas)


def _ascii(text: str) -> str:
    """Text in the signs the font has, on one line."""
    apart = "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
    return "".join(sign if sign.isascii() and sign.isprintable() else "?" for sign in apart)


def _height(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    """Height of a line's letters in pixels."""
    _, top, _, bottom = font.getbbox("Agj")
    return int(bottom - top) + 1


def _width(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return int(font.getbbox(text)[2]) + 1


def _beside(parts: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    canvas = np.zeros((max(len(part) for part in parts), sum(part.shape[1] for part in parts), 3), dtype=np.uint8)
    left = 0
    for part in parts:
        canvas[: len(part), left : left + part.shape[1]] = part
        left += part.shape[1]
    return canvas


def _above(upper: NDArray[np.uint8], lower: NDArray[np.uint8]) -> NDArray[np.uint8]:
    canvas = np.zeros((len(upper) + len(lower), max(upper.shape[1], lower.shape[1]), 3), dtype=np.uint8)
    canvas[: len(upper), : upper.shape[1]] = upper
    canvas[len(upper) :, : lower.shape[1]] = lower
    return canvas
