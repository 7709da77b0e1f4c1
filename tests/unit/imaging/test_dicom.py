"""DICOM objects become the frames that their attributes describe, or one clear error."""

# ruff: noqa: TID253 (pydicom is the second opinion here)
from __future__ import annotations

import importlib.util
import io
import math
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from dicom_builders import (
    BIG,
    CANARY,
    DEFLATED,
    EXPLICIT,
    FAULTS,
    IMPLICIT,
    JPEG,
    JPEG_12,
    JPEG_2000,
    JPEG_LS,
    LOSSLESS_JPEG,
    RLE,
    compress,
    dicom_bytes,
    jpeg_frame,
    jpeg_frame_12_bits,
    lut_item,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_windowing

from edgekit.errors import DataError, EdgekitError, MissingEngineError
from edgekit.imaging import dicom, dicom_display, dicom_gdcm
from edgekit.imaging.dicom_display import Grey, Lut, Stored, Window, grey_table

NATIVE = (IMPLICIT, EXPLICIT, BIG, DEFLATED)
LOSSLESS = (RLE, JPEG_LS, JPEG_2000)


@pytest.fixture
def frames_of(tmp_path):
    """Writes an object and reads its frames back."""

    def read(data: bytes) -> list[np.ndarray]:
        path = tmp_path / "object.dcm"
        path.write_bytes(data)
        return list(dicom.read(path))

    return read


def _random(shape: tuple[int, ...], low: int, high: int, dtype: type) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, shape, endpoint=True).astype(dtype)


def _ramp(shape: tuple[int, ...], low: int, high: int, dtype: type) -> np.ndarray:
    """Every value a little above the last; noise in so small a picture does not fit into the buffer of the JPEG-LS encoder."""
    return np.linspace(low, high, math.prod(shape)).round().astype(dtype).reshape(shape)


def _spread(stored: np.ndarray) -> np.ndarray:
    """The rule for more than 8 bits without a window, in the plainest words."""
    low, high = int(stored.min()), int(stored.max())
    return np.rint((stored.astype(np.float64) - low) / (high - low) * 255).astype(np.uint8)


@pytest.mark.parametrize("syntax", NATIVE + LOSSLESS)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("dtype", "bits"), [(np.uint8, 8), (np.uint16, 10), (np.uint16, 12), (np.uint16, 16), (np.int16, 12), (np.int16, 16)]
)
def test_grey_values_survive_every_lossless_encoding(frames_of, syntax, photometric, dtype, bits):
    """Grey objects of every depth give the same frames in every lossless transfer syntax, inverted exactly for MONOCHROME1."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype == np.int16 else (0, 2**bits - 1)
    stored = _ramp((2, 35, 34), low // 2, high // 2, dtype)
    found = frames_of(dicom_bytes(stored, photometric=photometric, syntax=syntax, bits_stored=bits))
    wanted = stored if bits == 8 else _spread(stored)
    assert len(found) == 2
    for frame, expected in zip(found, wanted, strict=True):
        assert frame.dtype == np.uint8
        np.testing.assert_array_equal(frame, 255 - expected if photometric == "MONOCHROME1" else expected)


@pytest.mark.parametrize(
    ("syntax", "planar"), [*((syntax, planar) for syntax in NATIVE for planar in (0, 1)), *((syntax, 0) for syntax in LOSSLESS)]
)
def test_rgb_survives_every_lossless_encoding(frames_of, syntax, planar):
    """RGB samples come out unchanged in every lossless transfer syntax, by pixel and by plane, also with odd lengths."""
    stored = _ramp((3, 35, 37, 3), 0, 255, np.uint8)[:, ::-1]
    np.testing.assert_array_equal(frames_of(dicom_bytes(stored, photometric="RGB", syntax=syntax, planar=planar)), stored)


def test_reversible_colour_transform_of_jpeg_2000_is_undone(frames_of):
    """YBR_RCT in JPEG 2000 gives back the RGB that was encoded."""
    stored = _random((1, 32, 32, 3), 0, 255, np.uint8)
    np.testing.assert_array_equal(frames_of(dicom_bytes(stored, photometric="YBR_RCT", syntax=JPEG_2000)), stored)


def test_twelve_bit_rgb_is_scaled_by_its_stored_bits(frames_of):
    """Colour samples of 12 bits are divided by 4095, not by 65535."""
    stored = np.array([[[[0, 4095, 2048], [16, 8, 4000]]]], np.uint16)
    expected = np.rint(stored[0] / 4095 * 255)
    np.testing.assert_array_equal(frames_of(dicom_bytes(stored, photometric="RGB", bits_stored=12))[0], expected)


@pytest.mark.parametrize("syntax", [EXPLICIT, RLE, JPEG_LS])
def test_ybr_full_is_converted_as_the_standard_says(frames_of, syntax):
    """YBR_FULL becomes RGB by the equations of PS3.3 C.7.6.3.1.2, within one level."""
    rgb = _ramp((1, 26, 38, 3), 0, 255, np.uint8).astype(np.float64)
    rgb[..., 0] = 255 - rgb[..., 0]
    matrix = np.array([[0.2990, 0.5870, 0.1140], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    ybr = np.clip(np.rint(rgb @ matrix.T + [0, 128, 128]), 0, 255).astype(np.uint8)
    found = frames_of(dicom_bytes(ybr, photometric="YBR_FULL", syntax=syntax))[0]
    assert np.abs(found - rgb[0]).max() <= 2


def test_ybr_full_422_is_spread_over_pixel_pairs(frames_of):
    """Uncompressed YBR_FULL_422 (Y Y B R) gives each pair of pixels its common colour."""
    stored = np.zeros((1, 1, 2, 3), np.uint8)
    data = dicom_bytes(stored, photometric="YBR_FULL_422", PixelData=bytes([76, 150, 85, 255]))
    # 76, 85, 255 is pure red; the second pixel is the same colour, 74 levels brighter.
    np.testing.assert_allclose(frames_of(data)[0], [[[254, 0, 0], [255, 74, 74]]], atol=1)


@pytest.mark.parametrize(
    ("marker", "photometric"),
    [("jfif", "YBR_FULL_422"), ("bare", "YBR_FULL_422"), ("adobe", "YBR_FULL_422"), ("adobe", "RGB"), ("jfif", "RGB")],
)
def test_jpeg_colour_is_converted_exactly_once(frames_of, marker, photometric):
    """A JPEG of YCbCr gives its RGB whatever marker says so; an Adobe marker does not lead to a second conversion."""
    pixels = np.full((1, 16, 16, 3), (200, 40, 90), np.uint8)
    data = dicom_bytes(pixels, photometric=photometric, syntax=JPEG, encoded=[jpeg_frame(pixels[0], marker)])
    np.testing.assert_allclose(frames_of(data)[0], pixels[0], atol=2)


def test_jpeg_of_plain_rgb_is_not_converted(frames_of):
    """A JPEG without any marker in an object that says RGB holds RGB components."""
    pixels = np.full((1, 16, 16, 3), (200, 40, 90), np.uint8)
    stored_as_ycc = jpeg_frame(pixels[0], "bare")
    found = frames_of(dicom_bytes(pixels, photometric="RGB", syntax=JPEG, encoded=[stored_as_ycc]))[0]
    # The components of that colour in YCbCr, handed out as they are.
    np.testing.assert_allclose(found[0, 0], [94, 126, 204], atol=2)


def test_grey_jpeg_multi_frame(frames_of):
    """Every frame of a grey JPEG cine is read, in order, without or with an offset table."""
    stored = np.stack([np.full((16, 24), value, np.uint8) for value in (10, 90, 200)])
    np.testing.assert_allclose(frames_of(dicom_bytes(stored, syntax=JPEG)), stored, atol=1)


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 12), (np.int16, 12), (np.int16, 16)])
def test_lossless_jpeg_through_gdcm(frames_of, dtype, bits):
    """JPEG Lossless, which only the optional GDCM reads, comes out unchanged, below zero too."""
    low = -(2 ** (bits - 1)) if dtype == np.int16 else 0
    stored = _random((1, 16, 24), low, low + 2**bits - 1, dtype)
    data = _gdcm_encoded(dicom_bytes(stored, bits_stored=bits), LOSSLESS_JPEG)
    np.testing.assert_array_equal(frames_of(data)[0], stored[0] if bits == 8 else _spread(stored)[0])


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_lossless_jpeg_colour_through_gdcm(frames_of, photometric):
    """Colour in JPEG Lossless is what its Photometric Interpretation says, by pixel."""
    stored = _random((2, 16, 24, 3), 0, 255, np.uint8)
    plain = dicom_bytes(stored, photometric=photometric)
    np.testing.assert_array_equal(frames_of(_gdcm_encoded(plain, LOSSLESS_JPEG)), frames_of(plain))


def test_damage_that_ends_gdcm_is_an_error(frames_of):
    """A frame on which GDCM would end the whole process is a DataError, and the next object is read as ever."""
    stored = _random((1, 16, 24), 0, 4095, np.uint16)
    good = _gdcm_encoded(dicom_bytes(stored, bits_stored=12), LOSSLESS_JPEG)
    # Without its Huffman table the frame makes GDCM throw a C++ exception that nobody catches.
    with pytest.raises(DataError, match="damaged"):
        frames_of(good.replace(b"\xff\xc4", b"\xff\x00", 1))
    np.testing.assert_array_equal(frames_of(good)[0], _spread(stored)[0])


def test_gdcm_that_hangs_is_ended(frames_of, monkeypatch):
    """A decoder that does not answer in time is killed, and the frame is an error."""
    monkeypatch.setattr(dicom_gdcm, "DECODE_TIMEOUT_S", 0.01)
    pytest.importorskip("gdcm")
    with pytest.raises(DataError, match="damaged"):
        frames_of(_gdcm_encoded(dicom_bytes(_random((1, 16, 24), 0, 255, np.uint8)), LOSSLESS_JPEG))


def test_gdcm_missing(frames_of, monkeypatch):
    """Without GDCM the installer is told which extra to install."""
    data = dicom_bytes(np.zeros((1, 8, 8), np.uint8), syntax=LOSSLESS_JPEG, encoded=[jpeg_frame(np.zeros((8, 8), np.uint8))])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingEngineError, match="lossless") as caught:
        frames_of(data)
    assert caught.value.hint == "install the extra: edgekit-toolkit[dicom-lossless-jpeg]"


def test_twelve_bit_jpeg_through_gdcm(frames_of, capfd):
    """12-bit JPEG is read with the codestream's precision, whatever Bits Stored and the sign are, and GDCM's own diagnosis stays off the terminal."""
    pytest.importorskip("gdcm")
    blocks = np.array([[0, 4095, 1000], [1023, 1024, 3000]], np.uint16)
    pixels = np.kron(blocks, np.ones((8, 8), np.uint16))[None]
    for bits in (12, 10):
        data = dicom_bytes(pixels, bits_stored=bits, syntax=JPEG_12, encoded=[jpeg_frame_12_bits(blocks)])
        np.testing.assert_array_equal(frames_of(data)[0], _spread(np.minimum(pixels[0], 2**bits - 1)))
    signed = np.where(pixels > 2047, pixels.astype(int) - 4096, pixels).astype(np.int16)
    data = dicom_bytes(signed, bits_stored=12, syntax=JPEG_12, encoded=[jpeg_frame_12_bits(blocks)])
    np.testing.assert_array_equal(frames_of(data)[0], _spread(signed[0]))
    assert capfd.readouterr() == ("", "")


def _gdcm_encoded(data: bytes, syntax: str) -> bytes:
    gdcm = pytest.importorskip("gdcm")
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.dcm", Path(folder) / "out.dcm"
        source.write_bytes(data)
        reader = gdcm.ImageReader()
        reader.SetFileName(str(source))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(target))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return target.read_bytes()


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, RLE])
@pytest.mark.parametrize("bits", [8, 16])
def test_palette_colours(frames_of, syntax, bits):
    """PALETTE COLOR gives the palette's colours in every byte order; indices outside of it take the nearest entry."""
    red, green, blue = ([10, 20, 30, 255], [0, 1, 2, 3], [200, 100, 50, 0])

    def change(dataset: Dataset) -> None:
        for name, entries in (("Red", red), ("Green", green), ("Blue", blue)):
            dataset.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [4, 5, bits])
            words = np.array(entries, np.uint8 if bits == 8 else np.uint16)
            data = words.tobytes() if bits == 8 else (words * 257).astype("<u2").tobytes()
            if syntax == BIG:
                data = np.frombuffer(data, "<u2").astype(">u2").tobytes()
            dataset.add_new(f"{name}PaletteColorLookupTableData", "OW", data)

    stored = np.array([[[0, 5, 6], [7, 8, 255]]], np.uint8)
    found = frames_of(dicom_bytes(stored, photometric="PALETTE COLOR", syntax=syntax, change=change))[0]
    index = np.array([[0, 0, 1], [2, 3, 3]])
    np.testing.assert_array_equal(found, np.stack([np.array(c)[index] for c in (red, green, blue)], axis=-1))


def test_palette_of_8_bit_colours_in_16_bit_entries(frames_of):
    """A 16-bit palette whose entries never pass 255 holds 8-bit colours; its upper bytes would be a black picture."""

    def change(dataset: Dataset) -> None:
        for name in ("Red", "Green", "Blue"):
            dataset.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [2, 0, 16])
            dataset.add_new(f"{name}PaletteColorLookupTableData", "OW", np.array([7, 255], "<u2").tobytes())

    found = frames_of(dicom_bytes(np.array([[[0, 1]]], np.uint8), photometric="PALETTE COLOR", change=change))[0]
    np.testing.assert_array_equal(found, [[[7, 7, 7], [255, 255, 255]]])


def test_segmented_palette_agrees_with_pydicom(frames_of):
    """A palette of discrete and linear segments expands as pydicom expands it."""
    segments = np.array([0, 2, 0, 1000, 1, 6, 65535, 0, 1, 512, 1, 7, 300], "<u2").tobytes()
    dataset = Dataset()
    for name in ("Red", "Green", "Blue"):
        dataset.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [16, 0, 16])
        dataset.add_new(f"Segmented{name}PaletteColorLookupTableData", "OW", segments)
    stored = np.arange(16, dtype=np.uint16).reshape(1, 2, 8)
    found = frames_of(dicom_bytes(stored, photometric="PALETTE COLOR", change=lambda d: d.update(dataset)))[0]
    dataset.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
    np.testing.assert_array_equal(found, apply_color_lut(stored[0], dataset) >> 8)


def _by_hand(value: float, center: float, width: float, function: str) -> float:
    """The pseudo-code of PS3.3 C.11.2.1.2 and C.11.2.1.3, with an output of 0 to 255."""
    if function == "SIGMOID":
        return 255 / (1 + math.exp(min(700, -4 * (value - center) / width)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if value <= center - width / 2:
        return 0
    return 255 if value > center + width / 2 else ((value - center) / width + 0.5) * 255


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@given(center=st.floats(-3000, 3000), width=st.floats(1, 6000), slope=st.sampled_from([1.0, -1.0, 0.5, -2.25]), signed=st.booleans())
@settings(max_examples=25, deadline=None)
def test_window_is_the_standards(function, center, width, slope, signed):
    """Every window function gives the standard's value for every stored value, also after a negative rescale slope."""
    stored = Stored(bits_allocated=16, bits_stored=12, signed=signed)
    table = grey_table(Grey(modality=(slope, -7.0), voi=Window(center=center, width=width, function=function)), stored)
    for value in np.linspace(stored.low, stored.high, 40).astype(int):
        expected = _by_hand(value * slope - 7, center, width, function)
        assert abs(int(table[value & 0xFFFF]) - expected) <= 0.5 + 1e-6


def test_window_agrees_with_pydicom(frames_of):
    """A window over 12 bits gives pydicom's windowing, scaled from its 0..4095 to 0..255."""
    stored = _random((1, 20, 20), 0, 4095, np.uint16)
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.PixelRepresentation = "MONOCHROME2", 12, 0
    dataset.WindowCenter, dataset.WindowWidth = 1800, 900
    found = frames_of(dicom_bytes(stored, bits_stored=12, WindowCenter=1800, WindowWidth=900))[0]
    np.testing.assert_array_equal(found, np.rint(apply_windowing(stored[0], dataset) / 4095 * 255))


def test_first_of_several_windows_is_used(frames_of):
    """Of several windows the first one counts."""
    stored = _random((1, 5, 5), 0, 4095, np.uint16)
    one = frames_of(dicom_bytes(stored, bits_stored=12, WindowCenter=1000, WindowWidth=500))
    several = frames_of(dicom_bytes(stored, bits_stored=12, WindowCenter=[1000, 40], WindowWidth=[500, 80]))
    np.testing.assert_array_equal(one, several)


def test_the_usual_window_of_8_bits_changes_nothing(frames_of):
    """Centre 128 and width 256 are the identity for 8 bits."""
    stored = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    np.testing.assert_array_equal(frames_of(dicom_bytes(stored, WindowCenter=128, WindowWidth=256)), stored)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_modality_lut_comes_before_the_window(frames_of, syntax):
    """The window is in the values that the Modality LUT gives, and values outside the table take its ends."""
    stored = np.array([[[0, 1, 2, 3, 9]]], np.uint8)
    data = dicom_bytes(stored, syntax=syntax, ModalityLUTSequence=[lut_item(1, [100, 300, 200], 12)], WindowCenter=200.5, WindowWidth=201)
    np.testing.assert_array_equal(frames_of(data)[0], [[0, 0, 255, 128, 128]])


def test_voi_lut_is_scaled_by_its_bits_and_preferred(frames_of):
    """A VOI LUT of 12 bits is divided by 4095, and counts where there is a window too."""
    stored = np.array([[[0, 1, 2, 200]]], np.uint8)
    data = dicom_bytes(stored, VOILUTSequence=[lut_item(0, [0, 4095, 2048], 12)], WindowCenter=1, WindowWidth=2)
    np.testing.assert_array_equal(frames_of(data)[0], [[0, 255, 128, 128]])


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", "IDENTITY", True),
    ],
)
def test_inverted_once_at_most(frames_of, photometric, shape, inverted):
    """MONOCHROME1 and Presentation LUT Shape INVERSE together invert once."""
    stored = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    extra = {} if shape is None else {"PresentationLUTShape": shape}
    np.testing.assert_array_equal(frames_of(dicom_bytes(stored, photometric=photometric, **extra)), 255 - stored if inverted else stored)


def test_negative_slope_inverts_once(frames_of):
    """A negative rescale slope makes small stored values bright, with and without a window."""
    stored = np.array([[[0, 1000, 4095]]], np.uint16)
    plain = frames_of(dicom_bytes(stored, bits_stored=12, RescaleSlope=-1, RescaleIntercept=4095))[0]
    windowed = dicom_bytes(stored, bits_stored=12, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_array_equal(plain, [[255, 193, 0]])
    np.testing.assert_array_equal(frames_of(windowed)[0], [[255, 193, 0]])


@pytest.mark.parametrize(("dtype", "bits", "wanted"), [(np.uint8, 8, 100), (np.uint8, 7, 201), (np.int8, 8, 228)])
def test_up_to_8_bits_use_their_whole_range(frames_of, dtype, bits, wanted):
    """Without a window, up to 8 stored bits are scaled by what they can say and not by what the frame holds."""
    assert frames_of(dicom_bytes(np.full((1, 2, 2), 100, dtype), bits_stored=bits))[0][0, 0] == wanted


def test_range_is_the_whole_objects(frames_of):
    """Without a window, frames of more than 8 bits share one scale: a dark frame of a cine stays dark."""
    stored = np.stack([np.full((4, 4), value, np.uint16) for value in (100, 300, 500)])
    assert [int(frame[0, 0]) for frame in frames_of(dicom_bytes(stored, bits_stored=12))] == [0, 128, 255]


@pytest.mark.parametrize("extra", [{"PixelPaddingValue": 0}, {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 90}])
def test_padding_does_not_stretch_the_range(frames_of, extra):
    """Pixel padding is left out of the range, as a value and as a range of values."""
    stored = np.array([[[0, 0 if "PixelPaddingRangeLimit" not in extra else 90, 1000, 1500, 2000]]], np.uint16)
    np.testing.assert_array_equal(frames_of(dicom_bytes(stored, bits_stored=12, **extra))[0], [[0, 0, 0, 128, 255]])


def test_flat_picture_is_black(frames_of):
    """A picture of one value without a window has no contrast to show."""
    assert frames_of(dicom_bytes(np.full((1, 3, 3), 900, np.uint16)))[0].max() == 0


def _functional_group(center: float, width: float) -> Dataset:
    voi, group = Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth = center, width
    group.FrameVOILUTSequence = [voi]
    return group


def test_functional_groups_hold_the_window(frames_of):
    """Windows in the shared and the per-frame functional groups are used; the frame's own wins."""
    stored = np.stack([np.array([[0, 1000, 4095]], np.uint16)] * 2)
    shared = frames_of(dicom_bytes(stored, bits_stored=12, SharedFunctionalGroupsSequence=[_functional_group(1000.5, 2)]))
    own = dicom_bytes(
        stored,
        bits_stored=12,
        SharedFunctionalGroupsSequence=[_functional_group(1000.5, 2)],
        PerFrameFunctionalGroupsSequence=[_functional_group(2048, 4096), Dataset()],
    )
    assert [frame[0].tolist() for frame in shared] == [[0, 128, 255]] * 2
    assert frames_of(own)[0][0].tolist() == [0, 62, 255]
    np.testing.assert_array_equal(frames_of(own)[1], shared[1])


def test_one_bit_pixels(frames_of):
    """One-bit pixels become 0 and 255."""
    packed = np.packbits(np.eye(8, dtype=np.uint8), bitorder="little").tobytes()
    data = dicom_bytes(np.zeros((1, 8, 8), np.uint8), BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed)
    np.testing.assert_array_equal(frames_of(data)[0], 255 * np.eye(8))


def test_unused_bits_are_ignored(frames_of):
    """Bits above Bits Stored, where old writers put overlays, do not reach the picture."""
    stored = np.array([[[0, 5, 4095]]], np.uint16)
    np.testing.assert_array_equal(frames_of(dicom_bytes(stored | 0xF000, bits_stored=12)), frames_of(dicom_bytes(stored, bits_stored=12)))


def test_missing_preamble_is_read(frames_of):
    """A file that begins with its file meta group is read."""
    stored = np.arange(48, dtype=np.uint8).reshape(1, 6, 8)
    np.testing.assert_array_equal(frames_of(dicom_bytes(stored, preamble=False)), stored)


def test_caller_owns_the_frames(frames_of):
    """Frames can be written to, and writing to one leaves the next alone."""
    for kwargs in ({"photometric": "RGB"}, {"photometric": "RGB", "syntax": RLE}, {"photometric": "YBR_FULL_422", "syntax": JPEG}):
        frames = frames_of(dicom_bytes(np.full((2, 16, 16, 3), 9, np.uint8), **kwargs))
        before = frames[1].copy()
        frames[0][...] = 0
        np.testing.assert_array_equal(frames[1], before)


@pytest.mark.parametrize("kwargs", [{"syntax": EXPLICIT}, {"syntax": RLE}, {"syntax": EXPLICIT, "wide": True}])
def test_a_cine_needs_the_memory_of_a_frame(tmp_path, kwargs):
    """A thousand frames are read with the memory of a few, also where the range of all of them is looked for first."""
    dtype = np.uint16 if kwargs.pop("wide", False) else np.uint8
    path = tmp_path / "cine.dcm"
    path.write_bytes(dicom_bytes(np.zeros((1000, 64, 64), dtype), **kwargs))
    list(dicom.read(path))
    tracemalloc.start()
    count = sum(1 for _ in dicom.read(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1000
    assert peak < 2.5e6  # all decoded frames: 4 MB or 8 MB


def _text_of(error: BaseException | None) -> str:
    text = ""
    while error is not None:
        text += f"{error} {getattr(error, 'hint', '')}"
        error = error.__cause__ or error.__context__
    return text


def test_warnings_and_log_lines_of_pydicom_stay_inside(frames_of, caplog, recwarn):
    """What pydicom warns of and logs, with attribute values in it, reaches neither the terminal nor the application's log."""
    stored = np.arange(48, dtype=np.uint8).reshape(1, 6, 8)
    padded = compress(stored[0], RLE, 8, "MONOCHROME2") + b"\0\7"
    np.testing.assert_array_equal(frames_of(dicom_bytes(stored, syntax=RLE, encoded=[padded])), stored)
    broken = compress(np.zeros((16, 16), np.uint8), JPEG_LS, 8, "MONOCHROME2")[:-8] + b"\xff" * 8
    with pytest.raises(DataError):
        frames_of(dicom_bytes(np.zeros((1, 16, 16), np.uint8), syntax=JPEG_LS, encoded=[broken]))
    assert not caplog.records
    assert not recwarn.list


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_faults_are_named(frames_of, fault, capfd):
    """Every named fault is a DataError that says what is wrong, prints nothing and quotes nothing of the patient."""
    build, words = FAULTS[fault]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=words) as caught:
            frames_of(data)
    assert CANARY not in _text_of(caught.value)
    assert capfd.readouterr() == ("", "")


def test_bombs_are_refused_before_memory_is_taken(tmp_path):
    """A header of 65535 × 65535 × 100000 and a deflated gigabyte cost next to nothing."""
    import zlib

    small = np.zeros((1, 6, 8), np.uint8)
    plain = dicom_bytes(small)
    deflated = dicom_bytes(small, syntax=DEFLATED)
    body = deflated.index(b"1.2.840.10008.1.2.1.99") + 22
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = b"".join([compressor.compress(b"\0" * 2**20) for _ in range(64)]) + compressor.flush()
    cases = {"header": FAULTS["bomb"][0](), "run-length": FAULTS["bomb-run-length"][0](), "deflated": deflated[:body] + bomb}
    assert len(plain) < 1000
    path = tmp_path / "bomb.dcm"
    original = dicom.MAX_INFLATED_MIB
    dicom.MAX_INFLATED_MIB = 4
    try:
        for data in cases.values():
            path.write_bytes(data)
            tracemalloc.start()
            with pytest.raises(DataError):
                list(dicom.read(path))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 12e6
    finally:
        dicom.MAX_INFLATED_MIB = original


def test_too_large_file_is_refused(tmp_path, monkeypatch):
    """A file above the limit is refused by its size alone."""
    monkeypatch.setattr(dicom, "MAX_FILE_MIB", 0)
    path = tmp_path / "large.dcm"
    path.write_bytes(dicom_bytes(np.zeros((1, 4, 4), np.uint8)))
    with pytest.raises(DataError, match="more than 0 MiB"):
        list(dicom.read(path))


def test_pydicom_missing(tmp_path, monkeypatch):
    """Without pydicom the installer is told which extra to install."""
    path = tmp_path / "object.dcm"
    path.write_bytes(dicom_bytes(np.zeros((1, 4, 4), np.uint8)))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingEngineError) as caught:
        list(dicom.read(path))
    assert caught.value.hint == "install the extra: edgekit-toolkit[dicom]"


def test_decoder_missing(frames_of, monkeypatch):
    """Without a decoder for the transfer syntax the installer is told which extra to install."""
    from pydicom.pixels.common import CoderBase

    data = dicom_bytes(np.zeros((1, 16, 16), np.uint8), syntax=JPEG_LS)
    monkeypatch.setattr(CoderBase, "available_plugins", property(lambda _: ()))
    with pytest.raises(MissingEngineError, match="JPEG-LS") as caught:
        frames_of(data)
    assert caught.value.hint == "install the extra: edgekit-toolkit[dicom]"


def test_one_decoder_and_no_second_try(frames_of, monkeypatch):
    """Where the preferred decoder fails on a frame, no other one is tried: decoders of lossy pictures differ."""
    import pydicom.pixels.decoders.gdcm as other
    from pydicom.pixels import get_decoder

    def refuse(*arguments):
        raise AssertionError("the second decoder was asked")

    monkeypatch.setitem(get_decoder(JPEG_LS)._available, "gdcm", refuse)
    assert other is not None
    broken = compress(np.zeros((16, 16), np.uint8), JPEG_LS, 8, "MONOCHROME2")[:-8] + b"\xff" * 8
    with pytest.raises(DataError, match="frame 0 cannot be decoded") as caught:
        frames_of(dicom_bytes(np.zeros((1, 16, 16), np.uint8), syntax=JPEG_LS, encoded=[broken]))
    assert "second decoder" not in _text_of(caught.value)


SMALL = {
    "native": lambda: dicom_bytes(_random((2, 5, 6), 0, 4095, np.uint16), bits_stored=12, WindowCenter=900, WindowWidth=700),
    "implicit": lambda: dicom_bytes(
        _random((1, 5, 6), 0, 255, np.uint8), syntax=IMPLICIT, ModalityLUTSequence=[lut_item(1, [100, 300, 200], 12)]
    ),
    "big": lambda: dicom_bytes(_random((1, 5, 6, 3), 0, 255, np.uint8), photometric="RGB", syntax=BIG, planar=1),
    "deflated": lambda: dicom_bytes(_random((1, 5, 6), 0, 255, np.uint8), syntax=DEFLATED),
    "rle": lambda: dicom_bytes(_random((2, 5, 6, 3), 0, 255, np.uint8), photometric="YBR_FULL", syntax=RLE),
    "jpeg": lambda: dicom_bytes(_random((2, 16, 16, 3), 0, 255, np.uint8), photometric="YBR_FULL_422", syntax=JPEG),
    "jpeg-ls": lambda: dicom_bytes(_ramp((1, 16, 16), 0, 255, np.uint8), syntax=JPEG_LS),
    "jpeg-2000": lambda: dicom_bytes(_random((1, 32, 32), 0, 4095, np.uint16), bits_stored=12, syntax=JPEG_2000),
}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_truncation_is_an_error(name):
    """A file cut at any byte is refused with an error of ours that names no patient."""
    data = SMALL[name]()
    shortest = len(data) - (8 if name == "deflated" else 1)
    for length in range(132, shortest, 3 if len(data) > 1000 else 1):
        with pytest.raises(EdgekitError) as caught:
            _read_bytes(data[:length])
        assert CANARY not in _text_of(caught.value)


@pytest.mark.parametrize("name", sorted(SMALL))
@given(places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_flipped_bits_never_leak_another_error(name, places):
    """Whatever bits are flipped, reading gives frames of the stated shape or an error of ours."""
    data = bytearray(SMALL_BYTES[name])
    for place, bits in places:
        data[132 + place % (len(data) - 132)] ^= bits
    try:
        frames = _read_bytes(bytes(data))
    except EdgekitError as error:
        said, frames = f"{error.message} {error.hint}", []
    else:
        said = ""
    assert CANARY not in said
    assert all(frame.dtype == np.uint8 and frame.ndim in (2, 3) for frame in frames)


@given(st.binary(max_size=600))
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_an_error(data):
    """Noise behind a DICOM prefix is refused with an error of ours."""
    with pytest.raises(EdgekitError):
        _read_bytes(b"\0" * 128 + b"DICM" + data)


SMALL_BYTES = {name: build() for name, build in SMALL.items()}


class _Memory:
    """As much of a path as the reader needs, without a disk under the thousands of files that are tried here."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def open(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self.data)

    def stat(self) -> _Memory:
        return self

    @property
    def st_size(self) -> int:
        return len(self.data)


def _read_bytes(data: bytes) -> list[np.ndarray]:
    return list(dicom.read(_Memory(data)))


def test_window_of_no_width_is_a_step():
    """A LINEAR window of width 1 is the standard's step at its centre."""
    table = grey_table(Grey(voi=Window(center=100, width=1)), Stored(bits_allocated=8, bits_stored=8, signed=False))
    assert [int(value) for value in table[98:102]] == [0, 0, 255, 255]


def test_lut_of_all_entries():
    """A table of 65536 entries, whose count is written as 0, covers every 16-bit value."""
    lut = Lut(first=0, entries=np.arange(65536, dtype=np.uint16), bits=16)
    table = dicom_display.grey_table(Grey(voi=lut), Stored(bits_allocated=16, bits_stored=16, signed=False))
    assert table[65535] == 255
    assert table[32768] == 128
