"""What a video's pictures say of the screen they were made for, and what else comes with them but pixels.

HDR10's static data (SMPTE ST 2086 and CTA-861.3) go to x264, which writes them into the new stream; the rest is named.
"""

import av
import numpy as np

MASTERING, LIGHT = "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"
LEFT_OUT = {
    "DYNAMIC_HDR_PLUS": "HDR10+ data",
    "DYNAMIC_HDR_VIVID": "HDR Vivid data",
    "DOVI_RPU_BUFFER": "Dolby Vision data",
    "DOVI_METADATA": "Dolby Vision data",
    "AMBIENT_VIEWING_ENVIRONMENT": "the light of the viewing room",
    "A53_CC": "closed captions within the pictures",
    "STEREO3D": "the 3D layout",
    "SPHERICAL": "the 360 degree layout",
    "ICC_PROFILE": "the ICC profile",
    "S12M_TIMECODE": "the time code",
}
PRIMARY, LUMINANCE = 50_000, 10_000  # steps of ST 2086: of a chromaticity, of a candela per square metre


def x264_parameters(picture: av.VideoFrame) -> str:
    """The mastering display and the light levels of the picture, as x264 is told them; "" for none."""
    mastering, light = (picture.side_data.get(name) for name in (MASTERING, LIGHT))
    found = []
    if mastering is not None:
        found += [f"mastering-display={_mastering(bytes(mastering))}"]
    if light is not None:
        found += ["cll={},{}".format(*np.frombuffer(bytes(light), np.uint32, 2))]
    return ":".join(found)


def _mastering(data: bytes) -> str:
    """FFmpeg's AVMasteringDisplayMetadata: rationals of red, green, blue, white, least and greatest luminance."""
    numbers = np.frombuffer(data, np.int32, 20).reshape(10, 2).astype(float)
    values = numbers[:, 0] / np.maximum(numbers[:, 1], 1)
    red, green, blue, white = (
        ",".join(str(round(value * PRIMARY)) for value in values[start : start + 2]) for start in range(0, 8, 2)
    )
    least, most = (round(value * LUMINANCE) for value in values[8:])
    return f"G({green})B({blue})R({red})WP({white})L({most},{least})"


def lost(picture: av.VideoFrame, static: bool) -> list[str]:
    """What the new stream will not say; `static`: whether the encoder takes the mastering display and light levels."""
    told = {name for name in (*LEFT_OUT, MASTERING, LIGHT) if picture.side_data.get(name) is not None}
    found = [what for name, what in LEFT_OUT.items() if name in told]
    found += [] if static or not {MASTERING, LIGHT} & told else ["HDR10 mastering display and light levels"]
    return list(dict.fromkeys(found))
