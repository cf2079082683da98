"""Grey photos of more than 8 bits, and what a TIFF says of its pictures and Pillow does not act upon."""

import numpy as np
from PIL import Image
from PIL import TiffImagePlugin as TiffTags

from b2b_jax.decoding import RefusedError
from b2b_jax.levels import to_levels

NEW_SUBFILE_TYPE, REDUCED, MASK = 254, 1, 4  # a TIFF's tag and bits of it: a copy or the mask of another picture
IMAGE_DEPTH = 32997  # a TIFF's tag: slices of a volume
UNSIGNED, SIGNED, UNSPECIFIED = 1, 2, 0  # what the tags SampleFormat and ExtraSamples call a channel
COLOURS = {2: 3, 5: 4, 6: 3, 8: 3}  # channels of RGB, CMYK, YCbCr and Lab, by the photometric interpretation; else one
PIXELS_AT_ONCE = 1 << 20  # pixels of float that are turned into levels at once


def deep_grey(image: Image.Image) -> np.ndarray:
    """uint16 (h, w) of a photo in one of Pillow's modes I (whole numbers up to 65535) and F (numbers up to 1).

    RefusedError: other numbers. A TIFF's 12 bits are spread over 16, and its white of 0 turned round.
    """
    values, peak = np.asarray(image), 1 if image.mode == "F" else 65535
    if image.mode == "I" and image.format == "TIFF" and tag(image, TiffTags.SAMPLEFORMAT, UNSIGNED) == UNSIGNED:
        values = values.view(np.uint32)  # Pillow takes them for signed ones
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= peak):
        raise RefusedError(f"grey values from {low:g} to {high:g}, wanted 0 to {peak}; save it with 8 or 16 bits")
    if image.mode == "F":
        rows = max(PIXELS_AT_ONCE // max(image.width, 1), 1)
        parts = [to_levels(values[top : top + rows], np.uint16) for top in range(0, len(values), rows)]
        levels = np.concatenate(parts)
    else:
        levels = _spread(values.astype(np.uint16, copy=False), tag(image, TiffTags.BITSPERSAMPLE, 16))
    return 65535 - levels if tag(image, TiffTags.PHOTOMETRIC_INTERPRETATION, 1) == 0 else levels


def _spread(values: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers of so many bits to all levels of 16."""
    if bits >= 16:
        return values
    top = (1 << bits) - 1
    if values.max() > top:
        raise RefusedError(f"grey values up to {values.max()}, wanted at most {top}, for it has {bits} bits")
    return to_levels(np.arange(top + 1) / top, np.uint16)[values]


def turn_to_whole_page(image: Image.Image) -> None:
    """Of a TIFF the first picture that is no reduced copy and no mask. RefusedError without one that can be shown."""
    if image.format != "TIFF":
        return
    for page in range(image.n_frames):
        image.seek(page)
        if not tag(image, NEW_SUBFILE_TYPE, 0) & (REDUCED | MASK):
            break
    else:
        raise RefusedError("a TIFF that shows only a reduced copy of its picture; save it again, whole")
    _check_page(image)


def _check_page(image: Image.Image) -> None:
    """Refuses what Pillow would show in part, or otherwise than it is meant."""
    bits = tag(image, TiffTags.BITSPERSAMPLE, 1)
    if tag(image, TiffTags.SAMPLEFORMAT, 1) == SIGNED and bits <= 16:  # of 32 bits they may be a photo's: `deep_grey`
        raise RefusedError(
            f"signed numbers of {bits} bits, and nothing says which is black; save it with unsigned ones"
        )
    if (slices := tag(image, IMAGE_DEPTH, 1)) > 1:
        raise RefusedError(f"a volume of {slices} slices, not a picture; save the slices one by one")
    rows = max((tile[1][3] for tile in image.tile), default=0)
    height = tag(image, TiffTags.IMAGELENGTH, 0)
    if rows < height:  # Pillow would leave the others black
        raise RefusedError(f"truncated or broken: it has pixels for {rows} of its {height} rows")


def unspecified(image: Image.Image) -> int:
    """How many channels a TIFF has beside its colours and transparency, of a meaning that it does not tell."""
    further = tag(image, TiffTags.SAMPLESPERPIXEL, 1) - COLOURS.get(
        tag(image, TiffTags.PHOTOMETRIC_INTERPRETATION, 1), 1
    )
    if image.format != "TIFF" or further < 1:
        return 0
    extra = image.tag_v2.get(TiffTags.EXTRASAMPLES, ())
    return further - (not extra or extra[0] != UNSPECIFIED)


def tag(image: Image.Image, number: int, otherwise: int) -> int:
    """A TIFF's tag, of the first channel."""
    value = image.tag_v2.get(number, otherwise) if image.format == "TIFF" else otherwise
    return value[0] if isinstance(value, tuple) else value
