"""What goes from one container to the next beside the pictures: tags, chapters, fonts, sound and subtitles.

What the new container cannot hold is said in a note.
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import av
from av.stream import Disposition

from b2b_jax import clips
from b2b_jax.errors import shown
from b2b_jax.inference import sound

# Facts of the old file, which muxers write by themselves or which are no longer true.
OF_THE_FILE = {"major_brand", "minor_version", "compatible_brands", "encoder", "location-eng", "duration"}
STATISTICS = ("bps", "duration", "number_of_frames", "number_of_bytes", "_statistics_")  # of Matroska, per stream
OF_THE_CODING = {"encoder", "encoder_options", "encoded_library_settings", "vendor_id", "alpha_mode", "rotate"}
# Tags that .mp4 and .mov have places of their own for; others, such as an iPhone's, go to a list of keys and values.
PLAIN = {"title", "artist", "album_artist", "composer", "album", "date", "comment", "genre", "copyright", "description"}
PLAIN |= {
    "synopsis",
    "show",
    "episode_id",
    "network",
    "lyrics",
    "grouping",
    "track",
    "disc",
    "keywords",
    "creation_time",
}
PLAIN |= {"location"}
QUICKTIME = {".mp4", ".m4v", ".mov"}
HOLDS_FONTS = {".mkv"}
BY_MUXER = "bin_data"  # the codec of a track of chapter names, which .mp4 and .mov have: the muxer makes it anew


def tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """A container's tags that are still true of another file."""
    return {key: value for key, value in metadata.items() if key.lower() not in OF_THE_FILE}


def stream_tags(metadata: Mapping[str, str], encoded: bool) -> dict[str, str]:
    """A stream's tags, without statistics and, when it was `encoded` anew, without facts of the old coding."""
    stale = OF_THE_CODING if encoded else set()
    return {k: v for k, v in metadata.items() if not k.lower().startswith(STATISTICS) and k.lower() not in stale}


def muxer_options(metadata: Mapping[str, str], suffix: str) -> dict[str, str]:
    """What the muxer is told so that it writes all tags."""
    rare = suffix in QUICKTIME and set(tags(metadata)) - PLAIN
    return {"movflags": "use_metadata_tags"} if rare else {}


def lost_tags(metadata: Mapping[str, str], written: Path) -> str:
    """The container's tags that a finished file lacks, as a note; "" for none."""
    with clips.opened(written) as reader:
        there = {key.lower() for key in reader.metadata}
    missing = [key for key in tags(metadata) if key.lower() not in there]
    return f"tags left out: {shown(', '.join(missing))}" if missing else ""


class Others:
    """The streams that are not encoded anew, and the chapters; `notes` says what is left out."""

    def __init__(self, target: Path, container: av.container.OutputContainer, reader: av.container.InputContainer):
        self._target, self._container, self.notes = target, container, []
        self._copies: dict[int, Callable[[av.Packet], None]] = {}
        self._lasts: dict[int, Fraction] = {}  # seconds, of each stream of the new container
        container.set_chapters(reader.chapters())
        pictures = reader.streams.best("video")
        for stream in reader.streams:
            if stream.index != pictures.index:
                self._take(stream, bool(reader.chapters()))

    def copy(self, packet: av.Packet) -> None:
        """Adds a packet of sound or subtitles; those of other streams are left out."""
        if packet.stream.index in self._copies:
            self._copies[packet.stream.index](packet)

    def _take(self, stream: av.stream.Stream, chapters: bool) -> None:
        if stream.type == "attachment":
            self._attach(stream)
        elif stream.type not in ("audio", "subtitle"):
            if not self._is_remade(stream, chapters):
                self.notes.append(f"{_described(stream)} is left out")
        elif stream.codec_context is None or (stream.type == "audio" and not stream.codec_context.sample_rate):
            self.notes.append(f"a stream of {stream.type} of unknown kind is left out")
        else:
            self._add(stream)

    def _is_remade(self, stream: av.stream.Stream, chapters: bool) -> bool:
        """True for tracks that the muxer makes from what it is told besides: of chapters, of the time code."""
        of_time = "timecode" in stream.metadata and self._target.suffix.lower() in QUICKTIME
        return stream.type == "data" and (of_time or (chapters and _codec(stream) in ("", BY_MUXER)))

    def _attach(self, stream: av.stream.Stream) -> None:
        if self._target.suffix.lower() in HOLDS_FONTS:
            self._container.add_attachment(stream.name or "attachment", stream.mimetype or "", stream.data or b"")
        else:
            self.notes.append(f"the attached file {shown(stream.name)} is left out")

    def _add(self, stream: av.stream.Stream) -> None:
        try:
            copy = self._container.add_stream_from_template(stream)
            if self._target.suffix.lower() in sound.MP4 and _codec(stream).startswith("pcm_"):
                copy.codec_context.layout = sound.layout(stream.codec_context)
            self._copies[stream.index] = lambda packet: self._mux(packet, copy)
        except ValueError:
            if stream.type == "subtitle":
                self.notes.append(f"subtitles ({_codec(stream)}) that {self._target.suffix} cannot hold are left out")
                return
            pcm = sound.Sound(self._target, self._target.suffix.lower(), self._container, stream)
            self._copies[stream.index], copy = pcm.add, pcm.stream
            self.notes.append(f"its {_codec(stream)} sound became {_codec(copy)}")
        copy.metadata.update(stream_tags(stream.metadata, encoded=False))
        copy.disposition = stream.disposition

    def _mux(self, packet: av.Packet, copy: av.stream.Stream) -> None:
        if packet.dts is None:  # an empty one, behind the last
            return
        time, last = packet.dts * packet.time_base, self._lasts.get(copy.index)
        if last is not None and time < last:  # which no container can hold
            time, packet.dts = last, math.ceil(last / packet.time_base)
            packet.pts = None if packet.pts is None else max(packet.pts, packet.dts)
        self._lasts[copy.index] = time
        source, packet.stream = packet.stream, copy
        with clips.named(self._target, "cannot be written"):
            self._container.mux(packet)
        packet.stream = source


def _codec(stream: av.stream.Stream) -> str:
    return stream.codec_context.name if stream.codec_context else ""


def _described(stream: av.stream.Stream) -> str:
    if stream.type == "video":
        return "the cover picture" if Disposition.attached_pic in stream.disposition else "a further stream of pictures"
    name = stream.metadata.get("handler_name", "").strip() or _codec(stream)
    return f"a stream of {stream.type}" + (f" ({shown(name)})" if name else "")
