"""DICOM objects built in memory, and the same objects with one named fault.

Any test may `from dicom_builders import dicom_bytes, FAULTS` (`tests/conftest.py` puts this folder on the path).

Every object carries the words CANARY in the attributes that name a patient, so that a test can look for them in everything that is printed.
"""

# ruff: noqa: TID253 (these objects are built with pydicom)
from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import UID

IMPLICIT, EXPLICIT, BIG, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
JPEG, JPEG_12, LOSSLESS_JPEG = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.70"
JPEG_LS, JPEG_2000, RLE = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"
US, US_MULTI, DX_RAW = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.1.1.1"
CANARY = "CANARY"


def dicom_bytes(
    frames: NDArray[Any],
    *,
    photometric: str = "MONOCHROME2",
    syntax: str = EXPLICIT,
    bits_stored: int | None = None,
    planar: int = 0,
    encoded: list[bytes] | None = None,
    preamble: bool = True,
    change: Callable[[Dataset], object] = lambda _: None,
    **attributes: Any,
) -> bytes:
    """A DICOM file.

    Args:
        frames: Stored values (frames, rows, columns) or (frames, rows, columns, 3); the dtype gives Bits Allocated and the sign.
        photometric: Photometric Interpretation.
        syntax: Transfer syntax UID; compressed here where it is a compressed one.
        bits_stored: Bits Stored; all of the dtype where it is None.
        planar: Planar Configuration; the values are rearranged for it.
        encoded: Frames that are compressed already.
        preamble: False leaves out the 128 bytes and "DICM".
        change: Called with the dataset just before it is written.
        attributes: More attributes by keyword, or other values for those set here; None removes one.
    """
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = US_MULTI if len(frames) > 1 else US, "1.2.3.4"
    dataset.PatientName, dataset.PatientID, dataset.InstitutionName = f"{CANARY}^Name", f"{CANARY}-ID", f"{CANARY} Hospital"
    dataset.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    dataset.PhotometricInterpretation = photometric
    if frames.ndim == 4:
        dataset.PlanarConfiguration = planar
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    dataset.BitsAllocated = 8 * frames.dtype.itemsize
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(frames.dtype.kind == "i")
    _add_pixels(dataset, frames, syntax, encoded)
    for keyword, value in attributes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    change(dataset)
    return _written(dataset, syntax, preamble=preamble)


def lut_item(first: int, entries: list[int], bits: int) -> Dataset:
    """An item of a Modality or VOI LUT Sequence, with its data as OW in little-endian order."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) & 0xFFFF, first, bits])
    item.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    return item


def jpeg_frame(pixels: NDArray[np.uint8], marker: str = "jfif", **options: Any) -> bytes:
    """A baseline JPEG with a JFIF marker, an Adobe marker ("adobe", transform 1) or none ("bare"); three components are YCbCr inside."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0, **options)
    data = buffer.getvalue()
    rest = data[4 + int.from_bytes(data[4:6], "big") :]
    return {"jfif": data, "bare": b"\xff\xd8" + rest, "adobe": b"\xff\xd8\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01" + rest}[marker]


def jpeg_frame_12_bits(blocks: NDArray[np.uint16]) -> bytes:
    """A 12-bit sequential JPEG (ITU-T T.81, SOF1) of flat blocks of 8 × 8 pixels: only DC coefficients, so it is exact."""
    segments = [
        (0xDB, bytes([0]) + bytes([1] * 64)),
        (0xC1, struct.pack(">BHHB", 12, 8 * blocks.shape[0], 8 * blocks.shape[1], 1) + bytes([1, 0x11, 0])),
        # Sixteen DC categories with codes of 5 bits; one AC symbol, the end of the block, with a code of 1 bit.
        (0xC4, bytes([0x00, 0, 0, 0, 0, 16, *[0] * 11, *range(16)])),
        (0xC4, bytes([0x10, 1, *[0] * 15, 0])),
        (0xDA, bytes([1, 1, 0, 0, 63, 0])),
    ]
    head = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    bits, last = "", 0
    for coefficient in (8 * (blocks.astype(int).ravel() - 2048)).tolist():
        difference, last = coefficient - last, coefficient
        size = abs(difference).bit_length()
        coded = difference if difference > 0 else difference + 2**size - 1
        bits += f"{size:05b}" + (f"{coded:0{size}b}" if size else "") + "0"
    bits += "1" * (-len(bits) % 8)
    body = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)).replace(b"\xff", b"\xff\x00")
    return b"\xff\xd8" + head + body + b"\xff\xd9"


def compress(frame: NDArray[Any], syntax: str, bits_stored: int, photometric: str) -> bytes:
    """One frame, compressed without loss (JPEG: at quality 95)."""
    frame = np.ascontiguousarray(frame)
    if syntax == JPEG:
        return jpeg_frame(frame)
    if syntax == JPEG_2000:
        from openjpeg.utils import encode_array

        return bytes(
            encode_array(
                frame, bits_stored=bits_stored, photometric_interpretation=1 if frame.ndim == 3 else 2, use_mct="YBR" in photometric
            )
        )
    options = {
        "rows": frame.shape[0],
        "columns": frame.shape[1],
        "samples_per_pixel": 3 if frame.ndim == 3 else 1,
        "number_of_frames": 1,
        "bits_allocated": 8 * frame.dtype.itemsize,
        "bits_stored": bits_stored,
        "pixel_representation": int(frame.dtype.kind == "i"),
        "photometric_interpretation": photometric,
        "planar_configuration": 0,
    }
    plugin = {RLE: "pydicom", JPEG_LS: "pyjpegls"}[syntax]
    return bytes(get_encoder(syntax).encode(frame, encoding_plugin=plugin, **options))


def _add_pixels(dataset: Dataset, frames: NDArray[Any], syntax: str, encoded: list[bytes] | None) -> None:
    if UID(syntax).is_compressed and syntax != DEFLATED:
        frames_of = encoded or [compress(frame, syntax, dataset.BitsStored, dataset.PhotometricInterpretation) for frame in frames]
        dataset.PixelData = encapsulate(frames_of, has_bot=False)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        return
    if frames.ndim == 4 and dataset.PlanarConfiguration == 1:
        frames = frames.transpose(0, 3, 1, 2)
    data = frames.astype(frames.dtype.newbyteorder(">" if syntax == BIG else "<")).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OW" if frames.dtype.itemsize > 1 else "OB"


def _written(dataset: Dataset, syntax: str, *, preamble: bool) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = UID(syntax), dataset.get("SOPClassUID", US)
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.file_meta = meta
    buffer = io.BytesIO()
    encoding = {} if syntax.startswith("1.2.840.10008.1.2") else {"implicit_vr": False, "little_endian": True}
    dataset.save_as(buffer, enforce_file_format=True, **encoding)
    return buffer.getvalue() if preamble else buffer.getvalue()[132:]


def _small() -> NDArray[np.uint8]:
    return np.arange(48, dtype=np.uint8).reshape(1, 6, 8)


def _run_length_bomb() -> bytes:
    """One pixel a segment states, two million that it unpacks to."""
    segment = bytes([129, 0]) * 16_000
    return struct.pack("<16L", 1, 64, *[0] * 14) + segment


def _headless() -> bytes:
    """The dataset alone, without the group that says how it is encoded."""
    data = dicom_bytes(_small())
    return data[data.index(b"\x08\x00\x16\x00UI") :]


def _without_delimiter() -> bytes:
    return dicom_bytes(_small(), syntax=RLE)[:-8]


# Each of these is refused with a DataError whose message holds the words.
FAULTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "no-pixels": (lambda: dicom_bytes(_small(), PixelData=None), "no pixel data"),
    "no-rows": (lambda: dicom_bytes(_small(), Rows=None), "Rows is missing"),
    "no-bits": (lambda: dicom_bytes(_small(), BitsStored=None), "BitsStored is missing"),
    "no-photometric": (lambda: dicom_bytes(_small(), PhotometricInterpretation=None), "Photometric"),
    "unknown-photometric": (lambda: dicom_bytes(_small(), PhotometricInterpretation=CANARY), "Photometric"),
    "zero-rows": (lambda: dicom_bytes(_small(), Rows=0), "empty"),
    "zero-frames": (lambda: dicom_bytes(_small(), NumberOfFrames=0), "empty"),
    "huge-frame": (lambda: dicom_bytes(_small(), Rows=65535, Columns=65535), "more than"),
    "many-frames": (lambda: dicom_bytes(_small(), NumberOfFrames=100_000), "100000 frames"),
    "bomb": (lambda: dicom_bytes(_small(), Rows=65535, Columns=65535, NumberOfFrames=100_000), "more than"),
    "bomb-compressed": (lambda: dicom_bytes(_small(), syntax=RLE, Rows=8000, Columns=8000), "run-length segment"),
    "bomb-run-length": (
        lambda: dicom_bytes(_small()[:, :1, :1], syntax=RLE, encoded=[_run_length_bomb()]),
        "unpacks to",
    ),
    "bomb-codestream": (lambda: dicom_bytes(_small(), syntax=JPEG, encoded=[jpeg_frame(np.zeros((64, 64), np.uint8))]), "64 × 64"),
    "too-many-bits": (
        lambda: dicom_bytes(
            np.zeros((1, 32, 32), np.uint8), syntax=JPEG_2000, encoded=[compress(np.zeros((32, 32), np.uint16), JPEG_2000, 9, "")]
        ),
        "9 bits, more than",
    ),
    "too-few-bytes": (lambda: dicom_bytes(_small(), Rows=7), "ask for 56"),
    "one-frame-more": (lambda: dicom_bytes(np.concatenate([_small()] * 2), NumberOfFrames=1), "ask for only 48"),
    "one-frame-less": (lambda: dicom_bytes(_small(), NumberOfFrames=2), "ask for 96"),
    "one-fragment-less": (lambda: dicom_bytes(_small(), syntax=RLE, NumberOfFrames=2), "1 fragments for 2 frames"),
    "one-fragment-more": (
        lambda: dicom_bytes(np.zeros((3, 16, 16), np.uint8), syntax=JPEG, NumberOfFrames=2),
        "more frames than the 2",
    ),
    "truncated": (lambda: dicom_bytes(_small())[:-5], "truncated"),
    "truncated-header": (lambda: dicom_bytes(_small())[:400], "truncated"),
    "truncated-fragment": (lambda: dicom_bytes(_small(), syntax=RLE)[:-12], "truncated"),
    "no-delimiter": (_without_delimiter, "truncated"),
    "truncated-deflated": (lambda: dicom_bytes(_small(), syntax=DEFLATED)[:-30], "deflated object is truncated"),
    "palette-missing": (lambda: dicom_bytes(_small(), photometric="PALETTE COLOR"), "RedPaletteColorLookupTable"),
    "samples-disagree": (lambda: dicom_bytes(_small(), photometric="RGB"), "disagree"),
    "window-zero": (lambda: dicom_bytes(_small(), WindowCenter=1, WindowWidth=0), "Window Width is 0"),
    "window-half": (lambda: dicom_bytes(_small(), WindowCenter=1), "must both be there"),
    "window-function": (lambda: dicom_bytes(_small(), WindowCenter=1, WindowWidth=9, VOILUTFunction=CANARY), "VOI LUT Function"),
    "slope-zero": (lambda: dicom_bytes(_small(), RescaleSlope=0, RescaleIntercept=1), "the slope not 0"),
    "short-lut": (
        lambda: dicom_bytes(_small(), VOILUTSequence=[lut_item(0, [1, 2], 8)], change=lambda d: _shorten(d.VOILUTSequence[0])),
        "entries",
    ),
    "high-bit": (lambda: dicom_bytes(_small().astype(np.uint16), bits_stored=12, HighBit=15), "High Bit"),
    "bits-allocated": (lambda: dicom_bytes(_small().astype(np.uint32)), "Bits Allocated is 32"),
    "for-processing": (lambda: dicom_bytes(_small(), SOPClassUID=DX_RAW), "for processing"),
    "for-processing-intent": (lambda: dicom_bytes(_small(), PresentationIntentType="FOR PROCESSING"), "for processing"),
    "segmentation": (lambda: dicom_bytes(_small(), SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"), "segmentation"),
    "directory": (lambda: dicom_bytes(_small(), SOPClassUID="1.2.840.10008.1.3.10"), "DICOMDIR"),
    "video": (lambda: dicom_bytes(_small(), syntax="1.2.840.10008.1.2.4.102", encoded=[b"\0\0"]), "video in DICOM"),
    "unknown-syntax": (lambda: dicom_bytes(_small(), syntax="1.2.840.10008.1.2.4.94", encoded=[b"\0\0"]), "transfer syntax is not read"),
    "presentation-lut": (lambda: dicom_bytes(_small(), PresentationLUTSequence=[lut_item(0, [1, 2], 8)]), "Presentation LUT"),
}


def _shorten(item: Dataset) -> None:
    item.LUTDescriptor = [300, 0, 8]
