"""Sound that the new container cannot hold as it is, such as a Blu-ray's LPCM: the same samples in a form it can."""

import av

from b2b_jax.clips import VideoError, named

# The sample formats of decoders, and PCM that holds every bit of them.
PCM = {"u8": "pcm_u8", "s16": "pcm_s16le", "s32": "pcm_s32le", "flt": "pcm_f32le", "dbl": "pcm_f64le"}
AT_MOST_24_BITS = {"pcm_bluray", "pcm_dvd", "pcm_s24be", "pcm_s24daud"}  # these decode to 32
MP4 = {".mp4", ".m4v"}  # whose PCM has 16 bits or more, and says which channel is where
TAKES_PCM = {".mkv", ".mov"} | MP4
# FFmpeg's names of channels that a file only counts, and what it takes them for.
LAYOUTS = {"1 channels": "mono", "2 channels": "stereo", "3 channels": "2.1", "4 channels": "4.0", "5 channels": "5.0"}
LAYOUTS |= {"6 channels": "5.1", "7 channels": "6.1", "8 channels": "7.1"}


class Sound:
    """A stream of sound in the making, of PCM without loss, from the packets of another."""

    def __init__(self, target: object, suffix: str, container: av.container.OutputContainer, source: av.AudioStream):
        context = source.codec_context
        kind = context.format.name.removesuffix("p")
        if suffix not in TAKES_PCM or kind not in PCM:
            advice = "rename the input to .mkv" if kind in PCM else "convert its audio first"
            raise VideoError(f"{target}: cannot hold the audio of the input ({context.name}); {advice}")
        kind = "s16" if kind == "u8" and suffix in MP4 else kind
        name = "pcm_s24le" if context.name in AT_MOST_24_BITS and kind == "s32" else PCM[kind]
        self._target, self._container = target, container
        self.stream = container.add_stream(name, rate=context.sample_rate, layout=layout(context))
        self._resampler = av.AudioResampler(kind, layout(context), context.sample_rate)

    def add(self, packet: av.Packet) -> None:
        """Adds a packet's samples; the empty one at the end of the input ends the stream."""
        for frame in _decoded(packet):
            self._encode(self._resampler.resample(frame))
        if not packet.size:
            self._encode([None])

    def _encode(self, frames: list[av.AudioFrame | None]) -> None:
        with named(self._target, "cannot be written"):
            for frame in frames:
                self._container.mux(self.stream.encode(frame))


def layout(context: av.AudioCodecContext) -> str:
    """FFmpeg's name of which channel is where; its guess where the file does not say it."""
    return LAYOUTS.get(context.layout.name, context.layout.name)


def _decoded(packet: av.Packet) -> tuple[av.AudioFrame, ...]:
    """The packet's sound, decoded by the first writer that asks; none of what is broken."""
    if packet.opaque is None:
        try:
            packet.opaque = tuple(packet.decode())
        except av.FFmpegError:
            packet.opaque = ()
    return packet.opaque
