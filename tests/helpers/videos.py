"""Small clips: written, read back and compared."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from b2b_jax.inference import video_writer

RATE = Fraction(30000, 1001)
TICK = Fraction(1, 30000)  # a frame takes 1001 of them
UNEVEN = [0, 1001, 2002, 4004, 5005, 9009, 10010, 11011, 13013, 14014]  # a phone's variable frame rate
ALL = slice(0, 3)


def pictures(h: int = 48, w: int = 64, count: int = 10) -> list[np.ndarray]:
    """Smooth pictures with a moving slope: what 4:2:0 and crf 16 leave alone."""
    y, x = np.mgrid[:h, :w]
    return [
        np.stack([40 + x * 2 + 3 * i, 60 + y * 2, 200 - x - y], -1).clip(0, 255).astype(np.uint8) for i in range(count)
    ]


def make(
    path, frames=None, times=UNEVEN, codec="libx264", pixels="yuv420p", sound="aac", turn=None, options=None, **tags
) -> Path:
    """Writes a clip; tags are attributes of the codec's context, turn the arguments of set_display_rotation."""
    frames = pictures() if frames is None else frames
    h, w = frames[0].shape[:2]
    with av.open(str(path), "w", options=options or {}) as out:
        out.metadata["title"] = "Ä clip"
        stream = out.add_stream(codec, RATE, {"crf": "8"}, width=w, height=h, pix_fmt=pixels, time_base=TICK)
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        if turn:
            stream.set_display_rotation(*turn)
        audio = out.add_stream(sound, 48000) if sound else None
        for frame, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, "rgb24")
            picture.pts, picture.time_base = time, TICK
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
        for i in range(24 if sound else 0):  # 24 x 20 ms
            layout = audio.codec_context.format.name
            dtype, peak = {"s16": (np.int16, 9e3), "s32": (np.int32, 6e8), "flt": (np.float32, 0.3)}[layout[:3]]
            wave = (np.sin(np.arange(960) * (i + 1) / 50) * peak).astype(dtype)
            samples = np.stack([wave] * 2) if layout.endswith("p") else np.repeat(wave, 2)[None]
            frame = av.AudioFrame.from_ndarray(samples, layout, "stereo")
            frame.sample_rate, frame.pts = 48000, i * 960
            out.mux(audio.encode(frame))
        if sound:
            out.mux(audio.encode(None))
    return path


def read(path: Path):
    """Frames and the packets of sound of a clip, and its streams' facts."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        sound = [bytes(p) for p in container.demux(audio=0) if p.size] if container.streams.audio else []
        container.seek(0)
        frames = list(container.decode(stream))
        facts = {"base": stream.time_base, "rate": stream.guessed_rate, "codec": stream.codec_context.name}
        facts |= {"aspect": stream.sample_aspect_ratio, "metadata": dict(container.metadata)}
        facts["audio"] = [s.codec_context.name for s in container.streams.audio]
        return frames, sound, facts


def rgb(frame: av.VideoFrame) -> np.ndarray:
    """A frame as floats in [0, 255]."""
    deep = video_writer.depth(frame) > 8
    levels = frame.to_ndarray(format="rgb48le" if deep else "rgb24", interpolation=video_writer.SCALING)
    return levels / (257 if deep else 1)


def seconds(frames: list[av.VideoFrame]) -> list[float]:
    """The frames' times."""
    return [float(frame.pts * frame.time_base) for frame in frames]


def same(frames):
    """The networks' stand-in: gives frames back as they are, four at a time."""
    batch = []
    for frame in frames:
        batch.append(frame.copy())
        if len(batch) == 4:
            yield from batch
            batch = []
    yield from batch


def assert_same_pictures(first: list, again: list, tolerance: float = 2.0) -> None:
    """As many frames, of the same size and near in colour."""
    assert len(first) == len(again) > 0
    for a, b in zip(first, again, strict=True):
        assert (a.width, a.height) == (b.width, b.height)
        assert np.abs(rgb(a) - rgb(b)).mean() < tolerance
