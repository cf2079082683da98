"""Videos written: pictures encoded anew, all other streams copied.

Frames are RGB, (h, w, 3), uint8 or uint16, upright, and stored turned as the source's. H.264 at crf 16 in 4:2:0, or in
4:4:4 when a side is odd, which 4:2:0 cannot hold; VP9 in WebM; 10 bits where the encoder can and the source has more
than 8.
"""

import contextlib
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from b2b_jax.clips import VideoError, display_matrix, named, turning
from b2b_jax.inference import hdr, panels, streams
from b2b_jax.inference.jobs import CONTAINERS
from b2b_jax.inference.noted import Noted
from b2b_jax.inference.streams import Others


class Encoder(NamedTuple):
    """How pictures are encoded."""

    name: str
    options: dict[str, str]
    odd: str  # the pixel format of frames with an odd side


# No frames out of order (bf): with them an .mp4 cannot tell how long each frame of an uneven rate is shown.
H264 = Encoder("libx264", {"crf": "16", "preset": "medium", "bf": "0"}, "yuv444p")
VP9 = Encoder("libvpx-vp9", {"crf": "18", "b": "0", "cpu-used": "4", "row-mt": "1"}, "yuv420p")

SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
# FFmpeg's numbers (AVColorSpace) of the matrices and what its scaler calls them; without a tag it takes BT.601.
BT709, UNTAGGED = 1, 2
MATRICES = {1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.ITU601}
MATRICES |= {7: Colorspace.SMPTE240M, 9: Colorspace.BT2020}


PATCH = 8  # pixels; the keys below are how many colour samples a format keeps of 8 across and 8 down
SUBSAMPLINGS = {(8, 8): "4:4:4", (4, 8): "4:2:2", (8, 4): "4:4:0", (2, 8): "4:1:1", (2, 2): "4:1:0", (4, 4): "4:2:0"}


class Writer:
    """A video in the making: pictures of the size, times and colours of `picture`, other streams copied from `reader`.

    A context: leaving it without error completes the file. With `count` pictures in a frame they lie side by side.
    """

    def __init__(
        self, draft: Path, target: Path, reader: av.container.InputContainer, picture: av.VideoFrame, count: int = 1
    ):
        source, suffix = reader.streams.best("video"), target.suffix.lower()
        encoder = VP9 if suffix == ".webm" else H264
        if encoder.name not in av.codecs_available:
            raise VideoError(f"{target}: this PyAV has no encoder {encoder.name}; one of `pip install av` has")
        self._target, self._draft, self._colours = target, draft, _colours(picture)
        self._turn, matrix = turning(picture), display_matrix(picture)
        self._canvas = panels.canvas(picture.width, picture.height, count, matrix, self._turn.swapped)
        self._format, bits = _pixel_format(encoder, picture, self._canvas)
        chroma = _lost_chroma(picture.format, av.VideoFormat(self._format))
        self._notes = [bits, chroma, self._canvas.note, *_lost(picture, source, encoder)]
        self._tags = dict(reader.metadata)
        self._file = Noted(draft, target)
        options = streams.muxer_options(self._tags, suffix)
        self._container = av.open(self._file, "w", format=CONTAINERS[suffix], options=options)
        self._container.metadata.update(streams.tags(self._tags))
        self._video = self._add_video(encoder, source, picture)
        self._others = Others(target, self._container, reader)
        self.copy = self._others.copy
        self._durations: dict[int, int] = {}

    def _add_video(self, encoder: Encoder, source: av.VideoStream, picture: av.VideoFrame) -> av.VideoStream:
        static = hdr.x264_parameters(picture) if encoder is H264 else ""
        video = self._container.add_stream(
            encoder.name,
            rate=source.guessed_rate or source.average_rate,
            options=encoder.options | ({"x264-params": static} if static else {}),
            width=self._canvas.width,
            height=self._canvas.height,
            pix_fmt=self._format,
            time_base=source.time_base,
        )
        video.metadata.update(streams.stream_tags(source.metadata, encoded=True))
        video.codec_context.sample_aspect_ratio = source.sample_aspect_ratio or 1
        for name, value in self._colours.items():
            setattr(video.codec_context, name, value)
        video.set_display_matrix(self._canvas.matrix)
        return video

    @property
    def note(self) -> str:
        """What the video's owner should know; complete when the file is."""
        return "; ".join(filter(None, dict.fromkeys([*self._notes, *self._others.notes])))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, error: type | None, *_: object) -> None:
        try:
            if error is None:
                self._complete()
        finally:
            with contextlib.suppress(av.FFmpegError):
                self._container.close()
            self._file.close()

    def _complete(self) -> None:
        with named(self._target, "cannot be written"):
            self._encode(None)
            self._container.close()
        self._file.check()
        self._notes.append(streams.lost_tags(self._tags, self._draft))

    def frame(self, rgb: np.ndarray, pts: int, duration: int) -> None:
        """Adds an upright frame (h, w, 3 count); times in units of the time base of the source."""
        rgb = self._turn.stored(panels.join(rgb))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24" if rgb.dtype == np.uint8 else "rgb48le")
        frame = frame.reformat(
            width=self._canvas.width,
            height=self._canvas.height,
            format=self._format,
            interpolation=SCALING,
            src_color_range=ColorRange.JPEG,
            dst_color_range=self._colours["color_range"] or ColorRange.MPEG,
            dst_colorspace=MATRICES.get(self._colours["colorspace"], Colorspace.DEFAULT),
        )
        for name, value in self._colours.items():
            setattr(frame, name, value)
        frame.pts, frame.time_base = pts, self._video.codec_context.time_base
        self._durations[pts] = duration
        with named(self._target, "cannot be written"):
            self._encode(frame)
        self._file.check()

    def _encode(self, frame: av.VideoFrame | None) -> None:
        for packet in self._video.encode(frame):
            packet.duration = self._durations.pop(packet.pts)
            self._container.mux(packet)


def depth(picture: av.VideoFrame) -> int:
    """Bits of a channel of the picture."""
    return max(component.bits for component in picture.format.components)


def _lost(picture: av.VideoFrame, source: av.VideoStream, encoder: Encoder) -> list[str]:
    """What the pictures say that the new ones will not."""
    found = [f"{what} left out" for what in hdr.lost(picture, static=encoder is H264)]
    if any(part.is_alpha for part in picture.format.components) or source.metadata.get("alpha_mode") == "1":
        found.append("its transparency (alpha) is left out")
    if picture.interlaced_frame:
        found.append("interlaced: its frames were taken as they lie and are no longer marked so; deinterlace it first")
    return found


def _pixel_format(encoder: Encoder, picture: av.VideoFrame, canvas: panels.Canvas) -> tuple[str, str]:
    """The encoder's pixel format for such frames, and what is lost by it."""
    name = encoder.odd if canvas.width % 2 or canvas.height % 2 else "yuv420p"
    known = {format.name for format in av.Codec(encoder.name, "w").video_formats}
    bits = 10 if depth(picture) > 8 and f"{name}10le" in known else 8
    note = f"its {depth(picture)} bits became {bits}" if depth(picture) > bits else ""
    return f"{name}10le" if bits == 10 else name, note


def _lost_chroma(source: av.VideoFormat, target: av.VideoFormat) -> str:
    """What is said when the encoder's format holds fewer colours across or down than the source's; else ""."""
    given, kept = ((f.chroma_width(PATCH), f.chroma_height(PATCH)) for f in (source, target))
    coloured = source.is_rgb or source.has_palette or len([c for c in source.components if not c.is_alpha]) > 1
    if not coloured or (given[0] <= kept[0] and given[1] <= kept[1]):
        return ""
    name = "RGB" if source.is_rgb or source.has_palette else SUBSAMPLINGS.get(given, source.name)
    return f"its {name} pictures became {SUBSAMPLINGS[kept]}"


def _colours(picture: av.VideoFrame) -> dict[str, int]:
    """The tags of colour; pictures that came as RGB are encoded by the matrix of HD television."""
    matrix = BT709 if picture.format.is_rgb else picture.colorspace
    return {
        "color_range": int(ColorRange.MPEG) if picture.format.is_rgb else picture.color_range,
        "colorspace": matrix if matrix in MATRICES else UNTAGGED,
        "color_primaries": picture.color_primaries,
        "color_trc": picture.color_trc,
    }
