"""Grey photos of more than 8 bits, and what a TIFF says of its pictures and Pillow does not act upon.

Of TIFFs with channels beside their colours Pillow knows but some. The others are made known to it here: it reads their
tags, and tifffile their pixels, as it does all TIFFs of 16 bits for `inference.photos`.
"""

import itertools

import numpy as np
import tifffile
from PIL import Image, ImageFile
from PIL import TiffImagePlugin as TiffTags

from b2b_jax.decoding import RefusedError
from b2b_jax.levels import TO_8_BITS, to_levels

NEW_SUBFILE_TYPE, REDUCED, MASK = 254, 1, 4  # a TIFF's tag and bits of it: a copy or the mask of another picture
IMAGE_DEPTH = 32997  # a TIFF's tag: slices of a volume
UNSIGNED, SIGNED = 1, 2  # what the tag SampleFormat calls a channel
UNSPECIFIED, ASSOCIATED = 0, 1  # what the tag ExtraSamples calls one: of any meaning, alpha within the colours
TRANSPARENT = (ASSOCIATED, 2)
COLOURS = {2: 3, 5: 4, 6: 3, 8: 3}  # channels of RGB, CMYK, YCbCr and Lab, by the photometric interpretation; else one
MODES = {0: "L", 1: "L", 2: "RGB", 5: "CMYK"}  # of Pillow, by the photometric interpretation; of white as 0, too
DECODED = ("L", "LA", "RGB", "RGBA", "CMYK")  # modes in which tifffile's pixels can be given
MOST_CHANNELS = 6  # Pillow refuses to open more
# The raw mode of what tifffile decodes: a sign for each channel, as Pillow takes it apart where these are planes.
RARE = "%" * MOST_CHANNELS
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
    if image.tile and (image.tile[0][3][0] in (RARE, RARE[0]) or _is_in_planes(image)):
        size = tag(image, TiffTags.IMAGEWIDTH, 0), tag(image, TiffTags.IMAGELENGTH, 0)
        image.use_load_libtiff = False
        image.tile = [("tifffile", (0, 0, *size), 0, (image.tell(),))]


def _is_in_planes(image: Image.Image) -> bool:
    """True for channels one behind the other, which Pillow mixes up or takes for broken."""
    bits = set(image.tag_v2.get(TiffTags.BITSPERSAMPLE, (1,)))
    whole = bits <= {8, 16} and tag(image, TiffTags.SAMPLEFORMAT, UNSIGNED) == UNSIGNED
    planes = tag(image, TiffTags.PLANAR_CONFIGURATION, 1) == tifffile.PLANARCONFIG.SEPARATE
    return planes and whole and image.mode in DECODED and tag(image, TiffTags.PHOTOMETRIC_INTERPRETATION, 1) in MODES


class _Decoder(ImageFile.PyDecoder):
    """Pillow's decoder of what tifffile reads; its argument is the page's number."""

    _pulls_fd = True

    def decode(self, buffer: bytes) -> tuple[int, int]:
        """Fills in the whole picture, of 8 bits."""
        self.fd.seek(0)
        with tifffile.TiffFile(self.fd) as file:
            array = pixels(file.pages[self.args[0]])
        array = TO_8_BITS[array] if array.dtype == np.uint16 else array
        self.set_as_raw(np.ascontiguousarray(array[..., : len(self.mode)] if array.ndim == 3 else array).tobytes())
        return -1, 0


def _make_known() -> None:
    """Tells Pillow of the TIFFs with 8 or 16 bits and channels beside grey, RGB or CMYK that it does not know.

    Of those beside grey it knows one, but not as planes.
    """
    Image.register_decoder("tifffile", _Decoder)
    for (photometric, mode), order, bits in itertools.product(MODES.items(), (b"II", b"MM"), (8, 16)):
        for further in range(1, MOST_CHANNELS - len(mode) + 1):
            for extra in [(), *itertools.product((UNSPECIFIED, *TRANSPARENT), repeat=further)]:
                key = (order, photometric, (UNSIGNED,), 1, (bits,) * (len(mode) + further), extra)
                full = mode if mode == "CMYK" or _alpha(extra) is None else mode + "A"
                if mode == "L" or key not in TiffTags.OPEN_INFO:
                    TiffTags.OPEN_INFO[key] = (full, RARE)


def _alpha(extra: tuple[int, ...]) -> int | None:
    """Which further channel is the transparency: the first that says so, or the first where the tag is missing."""
    return next((place for place, kind in enumerate(extra) if kind in TRANSPARENT), None) if extra else 0


def pixels(page: tifffile.TiffPage) -> np.ndarray:
    """The colours of a page of 8 or 16 bits and the transparency, if it has one, last: (h, w) or (h, w, c).

    As they lie, but with 0 for black and not multiplied by the transparency; other channels are left out.
    """
    array = page.asarray()
    if array.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        array = np.moveaxis(array, 0, -1)
    count, extra = COLOURS.get(page.photometric, 1), tuple(map(int, page.extrasamples))
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        grey = array if array.ndim == 2 else array[..., 0]
        np.invert(grey, out=grey)
    place = _alpha(extra)
    if array.ndim == 2 or array.shape[-1] == count:
        return array
    if place is None:
        return array[..., 0] if count == 1 else array[..., :count]
    array[..., count] = array[..., count + place]
    full = array[..., : count + 1]
    return _unmultiplied(full) if extra and extra[place] == ASSOCIATED else full


def _unmultiplied(array: np.ndarray) -> np.ndarray:
    """Colours that were multiplied by their alpha, the last channel, as they were before; in place."""
    peak = np.iinfo(array.dtype).max
    for row in array:  # one at a time, for the sake of memory
        alpha = np.maximum(row[..., -1:], 1)
        row[..., :-1] = np.minimum(np.rint(row[..., :-1] * float(peak) / alpha), peak)
    return array


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


def left_out(image: Image.Image) -> int:
    """How many channels a TIFF has beside its colours and its transparency, which that of CMYK is one of."""
    photometric = tag(image, TiffTags.PHOTOMETRIC_INTERPRETATION, 1)
    further = tag(image, TiffTags.SAMPLESPERPIXEL, 1) - COLOURS.get(photometric, 1)
    if image.format != "TIFF" or further < 1:
        return 0
    return further - (
        MODES.get(photometric) != "CMYK" and _alpha(image.tag_v2.get(TiffTags.EXTRASAMPLES, ())) is not None
    )


def tag(image: Image.Image, number: int, otherwise: int) -> int:
    """A TIFF's tag, of the first channel."""
    value = image.tag_v2.get(number, otherwise) if image.format == "TIFF" else otherwise
    return value[0] if isinstance(value, tuple) else value


_make_known()
