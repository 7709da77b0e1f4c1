"""Video files: MP4 and MOV, AVI, Matroska and WebM, decoded one frame at a time with PyAV, which brings FFmpeg.

Rules this file keeps:

1. FFmpeg gets a Python file object and the name of one demuxer; it is never given a path or a URL to open, and every attempt of a file to make it open
   another one (external references, playlists) is refused.
2. Only the decoders of `CODECS` run, also while the file is probed. Probing is limited in bytes and in time, a frame in pixels before it is decoded.
3. Damage is an error, never a picture with a grey bottom: FFmpeg's checks stop at the first fault in place of hiding it, and a file that is shorter than its container
   says is refused before the first frame (`containers.py`). A frame that a decoder leaves out is missed at the end. Most codecs have no check value, so a flipped bit that decodes cannot be found.
4. One decoder thread: the cores belong to the classifier, and damage is met at the same frame each time.
5. A file holds one moving picture. Cover art is left out; of two video tracks neither is chosen.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, MissingEngineError
from edgekit.imaging import containers
from edgekit.imaging.decoded import pixels_of
from edgekit.imaging.preprocess import MAX_FRAME_PIXELS

# Names of FFmpeg's decoders. A codec that is not here is refused: each further one is code that reads bytes nobody checked.
CODECS = (
    "h264",
    "hevc",
    "av1",
    "libdav1d",
    "vp8",
    "vp9",
    "mpeg4",
    "mpeg2video",
    "mpeg1video",
    "msmpeg4",
    "mjpeg",
    "ffv1",
    "huffyuv",
    "ffvhuff",
    "rawvideo",
)

# Those that give a frame for each packet. The others have packets that show none: VP8's hidden frames, MPEG's skipped ones and its fields.
_A_FRAME_A_PACKET = frozenset(CODECS) - {"vp8", "mpeg4", "msmpeg4", "mpeg1video", "mpeg2video"}

PROBE_BYTES = 8 * 2**20
"""Most that is read to find out what a file holds."""

PROBE_S = 10
"""Seconds of video that are looked at for that."""

# Still pictures (HEIF, AVIF, Canon's raw) are in the same container as an MP4.
_STILL_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif", b"crx ", b"jpeg"})
_HINT = "copy or export the file again"


def read_mp4(path: Path) -> Iterator[tuple[NDArray[np.uint8], float | None]]:
    """Reads the frames of an MP4 or MOV, in the order they are shown.

    Args:
        path: The file.

    Yields:
        The pixels, uint8 (rows, columns) or (rows, columns, 3) in RGB order (see `decoded.py`), and the presentation time in seconds; None where the
        file has none. The caller owns them.

    Raises:
        DataError: The file is damaged, truncated, too large, or holds something else; at the frame where the damage is met.
        MissingEngineError: PyAV is not installed.
    """
    yield from _read(path, "mov", containers.mp4_bytes)


def read_avi(path: Path) -> Iterator[tuple[NDArray[np.uint8], float | None]]:
    """Reads an AVI; arguments, frames and errors as `read_mp4`."""
    yield from _read(path, "avi", containers.avi_bytes)


def read_matroska(path: Path) -> Iterator[tuple[NDArray[np.uint8], float | None]]:
    """Reads a Matroska or WebM file; arguments, frames and errors as `read_mp4`."""
    yield from _read(path, "matroska", containers.matroska_bytes)


def load_library(what: str) -> Any:
    """PyAV.

    Raises:
        MissingEngineError: It is not installed, or does not load here.
    """
    try:
        import av
    except ImportError as error:
        raise MissingEngineError(f"{what}: reading video needs PyAV", hint="install the extra: edgekit-toolkit[video]") from error
    # For the whole process: errors are logged, each one, so that `_damage_is_an_error` sees them.
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    return av


def decoder_options() -> Mapping[str, str]:
    """What every decoder gets: stop at damage (rule 3), refuse frames above the limit before memory is taken for them (rule 2)."""
    return {"err_detect": "crccheck+bitstream+buffer+explode", "max_pixels": str(MAX_FRAME_PIXELS)}


def _read(path: Path, demuxer: str, measure: containers.Measure) -> Iterator[tuple[NDArray[np.uint8], float | None]]:
    av = load_library(str(path))
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    with file:
        _check_whole(path, file, measure)
        with _opened(av, path, file, demuxer) as container:
            yield from _frames(av, path, container, _stream(path, container))


def _check_whole(path: Path, file: BinaryIO, measure: containers.Measure) -> None:
    """Refuses a still picture in a container of video, and a file that is shorter than it says."""
    head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
        raise DataError(f"{path}: the file holds still pictures, not a video", hint="save the picture as PNG or JPEG")
    length = os.fstat(file.fileno()).st_size
    needed = measure(file, length)
    file.seek(0)
    if needed is None:
        raise DataError(f"{path}: the video is damaged, or was never finished: its parts have no sizes", hint=_HINT)
    if needed > length:
        raise DataError(f"{path}: the video is truncated: it has {length} of {needed} bytes", hint=_HINT)


def _opened(av: Any, path: Path, file: BinaryIO, demuxer: str) -> Any:
    options = {
        **decoder_options(),
        "probesize": str(PROBE_BYTES),
        "analyzeduration": str(PROBE_S * 1_000_000),
        "codec_whitelist": ",".join(CODECS),
        "enable_drefs": "0",
        "use_absolute_path": "0",
    }
    try:
        with av.logging.Capture():
            return av.open(file, format=demuxer, options=options, io_open=_refuse_to_open, metadata_errors="replace")
    except (av.FFmpegError, ValueError, UnicodeError) as error:
        raise DataError(f"{path}: the video cannot be opened: {_text(error)}", hint=_HINT) from error


def _refuse_to_open(_url: str, _flags: int, _options: object) -> NoReturn:
    raise PermissionError(1, "the file refers to another file, which is not opened")


def _stream(path: Path, container: Any) -> Any:
    """The one video track, checked and set up, before anything of it is decoded."""
    from av.stream import Disposition

    found = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if len(found) != 1:
        raise DataError(f"{path}: the file holds {len(found) or 'no'} video tracks", hint="export one with one video track")
    stream = found[0]
    context = stream.codec_context
    if context is None or context.codec.name not in CODECS:
        name = "of a kind that FFmpeg does not know" if context is None else f"encoded with {context.codec.name}"
        raise DataError(f"{path}: the video is {name}, which is not read", hint=f"these are: {', '.join(CODECS)}")
    if not context.width * context.height:  # FFmpeg forgets a size that is above the limit
        raise DataError(f"{path}: the video has no frame size, or one of more than {MAX_FRAME_PIXELS} pixels", hint=_HINT)
    if context.width * context.height > MAX_FRAME_PIXELS:
        raise DataError(f"{path}: a frame has {context.height} × {context.width} pixels, more than {MAX_FRAME_PIXELS}")
    context.thread_count = 1
    context.options = dict(decoder_options())
    return stream


def _frames(av: Any, path: Path, container: Any, stream: Any) -> Iterator[tuple[NDArray[np.uint8], float | None]]:
    count, needed, packets = 0, 0, container.demux(stream)
    while True:
        with _damage_is_an_error(av, path, count):
            packet = next(packets, None)
            decoded = [] if packet is None else packet.decode()
        if packet is None:
            break
        if packet.is_corrupt or any(frame.is_corrupt for frame in decoded):
            raise _damaged(path, count, "a frame is incomplete")
        needed += packet.size > 0 and not packet.is_discard
        for frame in decoded:
            yield pixels_of(str(path), frame), frame.time
            count += 1
    if not needed:
        raise DataError(f"{path}: the video holds no frame", hint=_HINT)
    if count < (needed if stream.codec_context.codec.name in _A_FRAME_A_PACKET else 1):
        raise _damaged(path, count, f"{needed} were stored, and no more than {count} can be decoded")


@contextlib.contextmanager
def _damage_is_an_error(av: Any, path: Path, frame: int) -> Iterator[None]:
    """Turns what FFmpeg raises into a `DataError`, and so what it only writes into its log: some decoders hide damage behind the frame before it."""
    try:
        with av.logging.Capture() as logs:
            yield
    except (av.FFmpegError, ValueError) as error:
        raise _damaged(path, frame, _text(error)) from error
    said = [message for level, _, message in logs if level <= av.logging.ERROR]
    if said:
        raise _damaged(path, frame, said[0].strip())


def _damaged(path: Path, frame: int, why: str) -> DataError:
    return DataError(f"{path}: the video is damaged at frame {frame}: {why}", hint=_HINT)


def _text(error: Exception) -> str:
    """FFmpeg's own words, without the number and without a name that came out of the file."""
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
