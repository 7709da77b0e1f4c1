"""PNG and JPEG files become exactly the frames they hold, or one clear error."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekit.errors import DataError, EdgekitError
from edgekit.imaging import raster

GREY = np.arange(63, dtype=np.uint8).reshape(7, 9) * 4
COLOUR = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)


def _saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png(rows: int, columns: int, depth: int, colour: int, body: bytes, *extra: tuple[bytes, bytes], interlace: int = 0) -> bytes:
    """A PNG written chunk by chunk, so that it can say what Pillow would not."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, colour, 0, 0, interlace)),
        *extra,
        (b"IDAT", zlib.compress(body)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _deep_png(values: np.ndarray, colour: int) -> bytes:
    return _png(values.shape[0], values.shape[1], 16, colour, b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))


@pytest.fixture
def frame_of(tmp_path):
    """Writes a file and reads its frame back."""

    def read(data: bytes) -> np.ndarray:
        path = tmp_path / "frame"
        path.write_bytes(data)
        (frame,) = (raster.read_png if data[:1] == b"\x89" else raster.read_jpeg)(path)
        return frame

    return read


@pytest.mark.parametrize("pixels", [GREY, COLOUR])
def test_png_is_exact(frame_of, pixels):
    """An 8-bit PNG gives its pixels, grey as (rows, columns) and colour as RGB, in memory that the caller owns."""
    frame = frame_of(_saved(Image.fromarray(pixels)))
    np.testing.assert_array_equal(frame, pixels)
    assert frame.dtype == np.uint8
    frame[...] = 0


@pytest.mark.parametrize("pixels", [np.full((16, 24), 77, np.uint8), np.full((16, 24, 3), (200, 40, 90), np.uint8)])
def test_jpeg_keeps_shape_and_colour_order(frame_of, pixels):
    """A JPEG gives grey as (rows, columns) and colour as RGB."""
    np.testing.assert_allclose(frame_of(_saved(Image.fromarray(pixels), "JPEG", quality=95)), pixels, atol=3)


def test_16_bit_grey_is_the_whole_range(frame_of):
    """Every 16-bit value v becomes round(v * 255 / 65535), whatever range the picture uses."""
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(frame_of(_deep_png(values, 0)), np.rint(values * (255 / 65535)))
    assert frame_of(_deep_png(np.full((2, 2), 4095, np.uint16), 0)).max() == 16


def test_16_bit_colour_is_its_upper_byte(frame_of):
    """16-bit RGB gives the upper byte of each sample."""
    values = np.array([[[0, 255, 256], [511, 65280, 65535]]], np.uint16)
    np.testing.assert_array_equal(frame_of(_deep_png(values.reshape(1, 6), 2).replace(*_narrow(6, 2))), values >> 8)


def _narrow(wrong: int, right: int) -> tuple[bytes, bytes]:
    """IHDR with its CRC, as `_deep_png` wrote it for a flat row and as it should be."""

    def header(columns: int) -> bytes:
        data = b"IHDR" + struct.pack(">IIBBBBB", columns, 1, 16, 2, 0, 0, 0)
        return data + struct.pack(">I", zlib.crc32(data))

    return header(wrong), header(right)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (4, 5), (16, 17)])
def test_interlaced_png_is_whole(frame_of, shape):
    """An interlaced PNG of any size is read, and one row less is an error."""
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    body = b""
    for top, left, down, right in ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)):
        part = pixels[top::down, left::right]
        body += b"".join(b"\0" + row.tobytes() for row in part) if part.size else b""
    data = _png(shape[0], shape[1], 8, 0, body, interlace=1)
    np.testing.assert_array_equal(frame_of(data), pixels)
    with pytest.raises(DataError, match="as many rows"):
        frame_of(_png(shape[0], shape[1], 8, 0, body[:-1], interlace=1))


@pytest.mark.parametrize(("bits", "expected"), [(1, [0, 255, 255, 0]), (2, [0, 85, 170, 255]), (4, [0, 17, 34, 51])])
def test_few_bits_are_spread(frame_of, bits, expected):
    """Grey of 1, 2 and 4 bits uses the whole range."""
    values = [0, 1, 1, 0] if bits == 1 else [0, 1, 2, 3]
    packed = int("".join(f"{value:0{bits}b}" for value in values).ljust(16, "0"), 2).to_bytes(2, "big")[: (4 * bits + 7) // 8]
    np.testing.assert_array_equal(frame_of(_png(1, 4, bits, 0, b"\0" + packed)), [expected])


def test_palette_becomes_rgb(frame_of):
    """A palette PNG gives the palette's colours."""
    image = Image.fromarray(COLOUR).quantize(8)
    np.testing.assert_array_equal(frame_of(_saved(image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opaque_alpha_is_dropped(frame_of, mode):
    """An alpha channel that is opaque everywhere changes nothing."""
    pixels = GREY if mode == "LA" else COLOUR
    np.testing.assert_array_equal(frame_of(_saved(Image.fromarray(pixels).convert(mode))), pixels)


def _see_through(mode: str) -> bytes:
    image = Image.fromarray(COLOUR).convert(mode)
    image.putalpha(Image.fromarray(np.where(GREY > 200, 254, 255).astype(np.uint8)))
    return _saved(image)


def _truncated(kind: str) -> bytes:
    data = _saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)), kind)
    return data[: len(data) * 2 // 3]


def _animated() -> bytes:
    return _saved(Image.fromarray(GREY), save_all=True, append_images=[Image.fromarray(255 - GREY)])


def _flipped() -> bytes:
    data = bytearray(_saved(Image.fromarray(COLOUR)))
    data[data.index(b"IDAT") + 40] ^= 1
    return bytes(data)


def _wrong_adler() -> bytes:
    """Rows whose own check value is wrong, in a chunk whose check value is right."""
    good = zlib.compress(b"\0" * 90)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0)), (b"IDAT", good[:-1] + bytes([good[-1] ^ 1])), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _bomb_jpeg() -> bytes:
    data = _saved(Image.fromarray(GREY), "JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", 65500, 65500) + data[place + 4 :]


def _two_sizes() -> bytes:
    data = _saved(Image.fromarray(GREY), "JPEG")
    place = data.index(b"\xff\xc0")
    segment = data[place : place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")]
    return data[:place] + segment + segment[:5] + struct.pack(">HH", 900, 900) + segment[9:] + data[place + len(segment) :]


FAULTS = {
    "see-through-grey": (lambda: _see_through("LA"), "see-through"),
    "see-through-colour": (lambda: _see_through("RGBA"), "see-through"),
    "see-through-key": (lambda: _saved(Image.fromarray(GREY), transparency=0), "see-through"),
    "see-through-palette": (lambda: _saved(Image.fromarray(COLOUR).quantize(8), transparency=0), "see-through"),
    "see-through-16-bits": (lambda: _png(1, 1, 16, 0, b"\0\0\0", (b"tRNS", b"\0\0")), "see-through|not read"),
    "cmyk": (lambda: _saved(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"), "CMYK"),
    "animated": (_animated, "animated"),
    "truncated-png": (lambda: _truncated("PNG"), "damaged or truncated"),
    "truncated-jpeg": (lambda: _truncated("JPEG"), "damaged or truncated"),
    "flipped-bit": (_flipped, "check value"),
    "wrong-adler": (_wrong_adler, "damaged or truncated"),
    "inflate-bomb": (lambda: _png(9, 9, 8, 0, b"\0" * 2**25), "as many rows"),
    "short-rows": (lambda: _png(9, 9, 8, 0, b"\0" * 89), "as many rows"),
    "no-rows": (lambda: _png(0, 9, 8, 0, b""), "empty"),
    "bomb-png": (lambda: _png(60_000, 60_000, 8, 0, b""), "more than 64000000"),
    "bomb-jpeg": (_bomb_jpeg, "more than 64000000"),
    "two-sizes": (_two_sizes, "two different sizes"),
    "signature-only": (lambda: b"\x89PNG\r\n\x1a\n", "no readable header"),
    "jpeg-start-only": (lambda: b"\xff\xd8\xff", "no readable header"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_faults_are_named(frame_of, fault, recwarn):
    """Every named fault is a DataError that says what is wrong, without a warning and without taking memory."""
    build, words = FAULTS[fault]
    data = build()
    tracemalloc.start()
    with pytest.raises(DataError, match=words):
        frame_of(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6
    assert not recwarn.list


def test_too_large_file_is_refused(frame_of, monkeypatch):
    """A file above the limit is refused by its size alone."""
    monkeypatch.setattr(raster, "MAX_FILE_MIB", 0)
    with pytest.raises(DataError, match="more than 0 MiB"):
        frame_of(_saved(Image.fromarray(GREY)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_orientation_is_applied(frame_of, kind, orientation):
    """A frame is turned as its EXIF orientation says (TIFF 6.0, tag 274)."""
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:8, :16] = 255
    exif = Image.Exif()
    exif[274] = orientation
    found = frame_of(_saved(Image.fromarray(pixels), kind, exif=exif.tobytes()))
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.T,
        6: pixels.T[:, ::-1],
        7: pixels.T[::-1, ::-1],
        8: pixels.T[::-1],
    }[orientation]
    np.testing.assert_allclose(found, turned, atol=3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_every_truncation_is_an_error(frame_of, kind):
    """A file cut at any byte is refused with an error of ours."""
    data = _saved(Image.fromarray(COLOUR), kind)
    # The last 12 bytes of a PNG are its end mark, the last two of a JPEG are its own: without them all rows are still there.
    for length in range(8, len(data) - (12 if kind == "PNG" else 2)):
        with pytest.raises(EdgekitError):
            frame_of(data[:length])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_flipped_bytes_never_leak_another_error(tmp_path_factory, kind, data):
    """Whatever byte is flipped, a PNG is refused or unchanged, and a JPEG gives a frame or an error of ours."""
    original = _saved(Image.fromarray(COLOUR), kind)
    place = data.draw(st.integers(8, len(original) - 1))
    broken = bytearray(original)
    broken[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / f"flipped-{kind}"
    path.write_bytes(broken)
    try:
        (frame,) = (raster.read_png if kind == "PNG" else raster.read_jpeg)(path)
    except EdgekitError:
        return
    assert kind == "JPEG" or np.array_equal(frame, COLOUR)


def _spread(content: bytes, between: bytes = b"") -> bytes:
    """The same PNG with its rows in chunks of 100 bytes, and another chunk between two of them."""
    parts, position, cut = [content[:8]], 8, 0
    while position < len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        body = content[position + 8 : position + 8 + length]
        if kind == b"IDAT":
            for start in range(0, length, 100):
                parts.append(_chunk(b"IDAT", body[start : start + 100]))
                cut += 1
                if between and cut == 2:
                    parts.append(_chunk(between, b"x"))
        else:
            parts.append(_chunk(kind, body))
        position += 12 + length
    return b"".join(parts)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "P", "1"])
def test_rows_are_unpacked_once_or_twice_alike(frame_of, monkeypatch, kept, mode):
    """A small picture is decoded from the rows that were unpacked to check them, a large one from the file: the pixels are the same, in one chunk or in many."""
    if not kept:
        monkeypatch.setattr(raster, "_KEPT_BYTES", 0)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    content = _saved(image)
    found = frame_of(content)
    np.testing.assert_array_equal(frame_of(_spread(content)), found)
    expected = pixels[..., 0] if mode == "I;16" else np.asarray(image.convert("L" if mode in ("L", "1") else "RGB"))
    np.testing.assert_array_equal(found, expected)


def test_small_pictures_are_unpacked_once(tmp_path, monkeypatch):
    """What Pillow is given is stored, not compressed."""
    given = []
    real = Image.open
    monkeypatch.setattr(raster.Image, "open", lambda file, **options: given.append(len(file.getvalue())) or real(file, **options))
    path = tmp_path / "frame.png"
    path.write_bytes(_saved(Image.fromarray(np.zeros((64, 64), np.uint8))))
    np.testing.assert_array_equal(next(raster.read_png(path)), np.zeros((64, 64), np.uint8))
    assert given[0] > 64 * 64 > path.stat().st_size


def test_rows_with_another_chunk_between_are_left_to_pillow(frame_of):
    """The standard wants them together: what Pillow refuses stays refused."""
    content = _spread(_saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8))), b"teXt")
    with pytest.raises(DataError, match="damaged"):
        frame_of(content)
