"""Photos as their owner wants them back: with depth, grey, transparency, colour profile and EXIF data as they were.

`images.read` gives what networks are trained on, 8-bit RGB; here the colours go to the networks and return, and all
else is kept aside. The EXIF orientation is applied. Colours are uint8 or uint16 RGB, (h, w, 3).
"""

import dataclasses
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms

from b2b_jax import decoding, files, images, kinds, levels, tiffs
from b2b_jax.images import ImageError
from b2b_jax.inference import sixteen_bits, tags
from b2b_jax.inference.tags import Tags

# EXIF tags of a TIFF that tell how its pixels lie; in another file they would be wrong.
LAYOUT_TAGS = frozenset(
    ExifTags.Base[name]
    for name in (
        *("NewSubfileType", "SubfileType", "ImageWidth", "ImageLength", "BitsPerSample", "Compression"),
        *("PhotometricInterpretation", "Thresholding", "FillOrder", "StripOffsets", "SamplesPerPixel", "RowsPerStrip"),
        *("StripByteCounts", "PlanarConfiguration", "TransferFunction", "Predictor", "ColorMap", "TileWidth"),
        *("TileLength", "TileOffsets", "TileByteCounts", "SubIFDs", "ExtraSamples", "SampleFormat", "JPEGTables"),
        *("YCbCrCoefficients", "YCbCrSubSampling", "YCbCrPositioning", "XMLPacket", "InterColorProfile"),
        *("CFARepeatPatternDim", "CFAPattern"),
    )
) | frozenset(range(50706, 52600))  # of DNG: they would make a raw photo of what has been developed

LAYERS = 37724  # the tag of a TIFF in which Photoshop keeps the layers, and which it shows instead of the pixels
OPAQUE = ("JPEG", "PPM", "BMP")  # formats without transparency; of a BMP's, as Pillow writes it, no reader knows


@dataclass(frozen=True)
class Photo:
    """A photo's colours for the networks, and what must come back with them."""

    pixels: np.ndarray  # uint8 or uint16 (h, w, 3)
    alpha: np.ndarray | None = None  # of the same dtype, (h, w); None: opaque
    grey: bool = False  # written back with one channel
    profile: bytes = b""  # the ICC profile of the colours
    exif: bytes = b""
    tags: Tags = Tags()  # noqa: RUF009  # frozen
    note: str = ""  # what the owner should know


def read(path: str | os.PathLike) -> Photo:
    """Reads a photo of any kind that `images.read` reads; of several frames or pages the first.

    More than 8 bits a channel are kept from PNG, TIFF, JPEG 2000, JPEG XL and raw photos. CMYK becomes RGB,
    by its profile to sRGB if it has one. ImageError as `images.read`.
    """
    path = Path(path)
    with images.opened(path) as image:
        if image.format == "PNG":
            image.load()  # its EXIF data may stand behind the pixels: what is wrong with these is said here
        notes = _notes(path, image)
        exif, profile = _exif(image, notes), tags.profile(path, image)
        orientation = _orientation(image)
        if image.format == kinds.RAW:
            array = image.develop(16)
        elif sixteen_bits.holds(path, image):
            array = turn(sixteen_bits.read(path, image), orientation)
        else:
            image = images.upright(image)
            image, profile = _from_cmyk(image, profile, notes) if image.mode == "CMYK" else (image, profile)
            array = tiffs.deep_grey(image) if image.mode[0] in "IF" else np.array(_plain(image))
        kept = tags.read(path, image, orientation, notes)
    return _photo(array, profile, exif, kept, "; ".join(notes))


def _notes(path: Path, image: Image.Image) -> list[str]:
    """What of the file its owner will not get back, or not as it was."""
    notes, count = [], getattr(image, "n_frames", 1)
    if image.format == "MPO":
        notes.append(f"the first of {count} pictures; the others (a preview, depth, another eye's view) are left out")
    elif count > 1:
        notes.append(f"the first of {count} frames")
    if image.format == kinds.RAW:
        notes.append("a raw photo, developed as the camera metered it")
    bits = sixteen_bits.depth(path, image)
    if bits > 8 and image.mode in ("RGB", "RGBA", "CMYK", "L", "LA") and not sixteen_bits.holds(path, image):
        notes.append(f"its {bits} bits became 8")
    if bits > 16 and image.mode[0] in "IF":
        notes.append(f"its {bits} bits became 16")
    if further := tiffs.left_out(image):
        notes.append(f"{further} extra channel{'s' * (further > 1)} left out")
    return notes


def _orientation(image: Image.Image) -> int:
    """The EXIF tag, 1 to 8; 1 for formats that are stored upright, whatever the tag says."""
    return 1 if image.format in decoding.UPRIGHT else decoding.told(image.getexif())


def write(path: str | os.PathLike, photo: Photo) -> str:
    """Writes a photo so that `path` holds the whole file or is untouched; its suffix, one of images.SAVE, says what.

    16 bits are written to PNG, TIFF and PGM, and rounded to 8 for others. Returns what the format cannot hold: bits,
    tags. ImageError: it cannot hold the photo's transparency or size; OSError: the disk is full or the folder cannot
    be written.
    """
    path = Path(path)
    suffix, kind = path.suffix.lower(), images.SAVE[path.suffix.lower()]["format"]
    if photo.alpha is not None and kind in OPAQUE:
        if photo.alpha.min() < np.iinfo(photo.alpha.dtype).max:
            raise ImageError(f"{path}: {suffix} files are written without transparency; rename the photo to .png")
        photo = dataclasses.replace(photo, alpha=None)
    photo = dataclasses.replace(photo, exif=_sized(photo.exif, *photo.pixels.shape[:2]))
    photo, long = _without_long(photo, kind)
    array = _array(photo)
    with files.draft(path) as part:
        if array.dtype == np.uint16 and suffix in sixteen_bits.WRITERS:
            sixteen_bits.WRITERS[suffix](part, array, photo.profile, photo.exif, photo.tags)
        else:
            array = levels.TO_8_BITS[array] if array.dtype == np.uint16 else array
            kept = {"icc_profile": photo.profile or None} | ({"exif": photo.exif} if photo.exif else {})
            try:
                images.save(part, Image.fromarray(array), **images.SAVE[suffix], **kept | _options(photo, kind))
            except ValueError as error:
                raise ImageError(f"{path}: cannot be written ({error})") from error
    bits = "its 16 bits became 8" if photo.pixels.dtype == np.uint16 and suffix not in sixteen_bits.WRITERS else ""
    return "; ".join(filter(None, [bits, long, tags.lost(photo.tags, photo.profile, photo.exif, kind)]))


def _sized(exif: bytes, height: int, width: int) -> bytes:
    """The EXIF data with the photo's size where they tell one: it may have been turned, or joined to others."""
    data = Image.Exif()
    data.load(exif)
    told = data.get_ifd(ExifTags.IFD.Exif)
    size = {ExifTags.Base.ExifImageWidth: width, ExifTags.Base.ExifImageHeight: height}
    wrong = {tag: side for tag, side in size.items() if told.get(tag, side) != side}
    told.update(wrong)
    return data.tobytes() if wrong else exif


def _without_long(photo: Photo, kind: str) -> tuple[Photo, str]:
    """The photo without what is too long for a segment of a JPEG, and a note of that."""
    if kind != "JPEG":
        return photo, ""
    longs = [len(photo.exif) > tags.LONGEST_EXIF, len(photo.tags.xmp) > tags.LONGEST_XMP]
    exif = b"" if longs[0] else photo.exif
    kept = dataclasses.replace(photo.tags, xmp=b"", xmp_extension=()) if longs[1] else photo.tags
    names = [name for name, long in zip(("EXIF data", "XMP data"), longs, strict=True) if long]
    note = f"{' and '.join(names)} too long for a JPEG: left out" if names else ""
    return dataclasses.replace(photo, exif=exif, tags=kept), note


def _options(photo: Photo, kind: str) -> dict:
    """The tags as Pillow is told them. It takes a TIFF's from one place: EXIF data are such tags."""
    options = tags.options(photo.tags, kind)
    if kind == "TIFF" and photo.exif:
        data = Image.Exif()
        data.load(photo.exif)
        data.update(options.pop("tiffinfo"))
        options["exif"] = data.tobytes()
    return options


def turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """(h, w, ...) as it is meant to be seen; `orientation` is the EXIF tag, 1 to 8, anything else counts as 1."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    flips = {2: "x", 3: "xy", 4: "y", 6: "x", 7: "xy", 8: "y"}.get(orientation, "")
    return array[:: -1 if "y" in flips else 1, :: -1 if "x" in flips else 1]


def _exif(image: Image.Image, notes: list[str]) -> bytes:
    """The EXIF data, fit for the upright photo in any format."""
    try:
        kept, found = Image.Exif(), image.getexif()
        if found.bigtiff:  # Pillow cannot read back the EXIF data that it writes in this form
            for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                found.get_ifd(part)
            found.bigtiff = False
        kept.load(found.tobytes())
        if LAYERS in kept:
            notes.append("its layers of Photoshop are left out")
        for tag in (LAYOUT_TAGS | {LAYERS}) & set(kept):
            del kept[tag]
        if ExifTags.Base.Orientation in kept:
            kept[ExifTags.Base.Orientation] = 1
        return kept.tobytes() if len(kept) else b""
    # Cameras and editors write EXIF that Pillow cannot write back; a photo is worth more than its EXIF.
    except Exception as error:
        notes.append(f"its EXIF data are broken and left out ({error})")
        return b""


def _from_cmyk(image: Image.Image, profile: bytes, notes: list[str]) -> tuple[Image.Image, bytes]:
    """The photo in RGB and the profile of that."""
    if not profile:
        notes.append("CMYK without a profile became RGB")
        return image.convert("RGB"), b""
    srgb = ImageCms.createProfile("sRGB")
    try:
        rgb = ImageCms.profileToProfile(image, io.BytesIO(profile), srgb, outputMode="RGB")
    except ImageCms.PyCMSError as error:
        notes.append(f"CMYK with a broken profile became RGB ({error})")
        return image.convert("RGB"), b""
    notes.append("CMYK became sRGB by its profile")
    return rgb, ImageCms.ImageCmsProfile(srgb).tobytes()


def _plain(image: Image.Image) -> Image.Image:
    """Any 8-bit mode to L, LA, RGB or RGBA."""
    grey = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return image.convert(grey + "A" if image.has_transparency_data else grey)


def _photo(array: np.ndarray, profile: bytes, exif: bytes, kept: Tags, note: str) -> Photo:
    """(h, w) or (h, w, 1 to 4): grey or RGB, the last of 2 or 4 channels is the alpha."""
    array = np.atleast_3d(array)
    channels = array.shape[-1]
    alpha = array[..., -1] if channels in (2, 4) else None
    pixels = np.repeat(array[..., :1], 3, axis=-1) if channels <= 2 else array[..., :3]
    return Photo(pixels, alpha, channels <= 2, profile, exif, kept, note)


def _array(photo: Photo) -> np.ndarray:
    """The inverse of `_photo`; grey is the mean of the colours, rounded."""
    colours = photo.pixels
    if photo.grey:
        colours = ((colours.sum(axis=-1, keepdims=True, dtype=np.uint32) + 1) // 3).astype(colours.dtype)
    array = colours if photo.alpha is None else np.concatenate([colours, photo.alpha[..., None]], axis=-1)
    return np.ascontiguousarray(array[..., 0] if array.shape[-1] == 1 else array)
