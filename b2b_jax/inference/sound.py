"""Sound that the new container cannot hold as it is, such as a Blu-ray's LPCM: the same samples in a form it can."""

import av

from b2b_jax.clips import VideoError, named

# The sample formats of decoders, and PCM that holds every bit of them.
PCM = {"u8": "pcm_u8", "s16": "pcm_s16le", "s32": "pcm_s32le", "flt": "pcm_f32le", "dbl": "pcm_f64le"}
PCM |= {"s64": "pcm_s64le"}
AT_MOST_24_BITS = {"pcm_bluray", "pcm_dvd", "pcm_s24be", "pcm_s24daud"}  # these decode to 32
TAKES_PCM = {".mkv", ".mov"}


class Sound:
    """A stream of sound in the making, of PCM without loss, from the packets of another."""

    def __init__(self, target: object, suffix: str, container: av.container.OutputContainer, source: av.AudioStream):
        context = source.codec_context
        if suffix not in TAKES_PCM:
            raise VideoError(f"{target}: cannot hold the audio of the input ({context.name})")
        kind = context.format.name.removesuffix("p")
        name = "pcm_s24le" if context.name in AT_MOST_24_BITS and kind == "s32" else PCM[kind]
        self._target, self._container = target, container
        self.stream = container.add_stream(name, rate=context.sample_rate, layout=context.layout.name)
        self._resampler = av.AudioResampler(kind, context.layout.name, context.sample_rate)

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


def _decoded(packet: av.Packet) -> tuple[av.AudioFrame, ...]:
    """The packet's sound, decoded by the first writer that asks; none of what is broken."""
    if packet.opaque is None:
        try:
            packet.opaque = tuple(packet.decode())
        except av.FFmpegError:
            packet.opaque = ()
    return packet.opaque
