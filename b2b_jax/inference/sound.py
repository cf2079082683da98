"""Sound that the new container cannot hold as it is, such as a Blu-ray's LPCM: the same samples in a form it can."""

import av

from b2b_jax.clips import VideoError, named

# The sample formats of decoders, and PCM that holds every bit of them.
PCM = {"u8": "pcm_u8", "s16": "pcm_s16le", "s32": "pcm_s32le", "flt": "pcm_f32le", "dbl": "pcm_f64le"}
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
        # A decoder of its own: the reader's may serve several writers.
        self._decoder = av.CodecContext.create(context.name, "r")
        self._decoder.extradata = context.extradata
        self._decoder.sample_rate, self._decoder.layout = context.sample_rate, context.layout.name
        self.stream = container.add_stream(name, rate=context.sample_rate, layout=context.layout.name)
        self._resampler = av.AudioResampler(kind, context.layout.name, context.sample_rate)

    def add(self, packet: av.Packet | None) -> None:
        """Adds a packet's samples; None ends the stream. What cannot be decoded is passed over."""
        try:
            frames = self._decoder.decode(packet)
        except av.InvalidDataError:
            return
        for frame in frames:
            if frame.pts is not None and packet is not None:
                frame.time_base = packet.time_base
            self._encode(self._resampler.resample(frame))
        if packet is None:
            self._encode([None])

    def _encode(self, frames: list[av.AudioFrame | None]) -> None:
        with named(self._target, "cannot be written"):
            for frame in frames:
                self._container.mux(self.stream.encode(frame))
