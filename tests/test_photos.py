"""Photos there and back: colours, depth, grey, transparency, orientation, colour profile and EXIF data."""

import io
import itertools
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps

from b2b_jax import images
from b2b_jax.images import ImageError
from b2b_jax.inference import photos
from b2b_jax.inference.photos import Photo
from b2b_jax.inference.tags import LONGEST_EXIF, LONGEST_XMP, Tags

RNG = np.random.default_rng(0)
RGB8 = RNG.integers(0, 256, (6, 9, 3), np.uint8)
RGB16 = RNG.integers(0, 65536, (6, 9, 3), np.uint16)
ALPHA8, ALPHA16 = RGB8[..., 0].copy(), RGB16[..., 0].copy()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation: int) -> bytes:
    """EXIF data with a sub-directory each of the camera's settings and of the place."""
    data = Image.Exif()
    data[ExifTags.Base.Make], data[ExifTags.Base.Orientation] = "Maker", orientation
    data[ExifTags.Base.XResolution] = 72.0
    data.get_ifd(ExifTags.IFD.Exif).update({ExifTags.Base.ISOSpeedRatings: 400, ExifTags.Base.FNumber: 2.8})
    stored = {ExifTags.Base.ExifImageWidth: RGB8.shape[1], ExifTags.Base.ExifImageHeight: RGB8.shape[0]}
    data.get_ifd(ExifTags.IFD.Exif).update(stored)
    data.get_ifd(ExifTags.IFD.GPSInfo).update({ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSAltitude: 12.5})
    return data.tobytes()


def assert_kept(path: Path) -> None:
    """The profile and the EXIF data of `exif` are in the file, which is upright."""
    with Image.open(path) as image:
        assert image.info["icc_profile"] == SRGB
        data = image.getexif()
        assert data[ExifTags.Base.Make] == "Maker" and data.get(ExifTags.Base.Orientation, 1) == 1
        settings, place = data.get_ifd(ExifTags.IFD.Exif), data.get_ifd(ExifTags.IFD.GPSInfo)
        assert settings[ExifTags.Base.ISOSpeedRatings] == 400 and float(settings[ExifTags.Base.FNumber]) == 2.8
        assert (settings[ExifTags.Base.ExifImageWidth], settings[ExifTags.Base.ExifImageHeight]) == image.size
        assert place[ExifTags.GPS.GPSLatitudeRef] == "N" and float(place[ExifTags.GPS.GPSAltitude]) == 12.5


def there_and_back(source: Path, target: Path | None = None) -> Photo:
    """Reads a photo, writes it, reads that, and compares: same colours, same kind. Returns it."""
    target = target or source.with_name(f"copy{source.suffix}")
    first = photos.read(source)
    photos.write(target, first)
    again = photos.read(target)
    assert again.grey == first.grey and again.pixels.dtype == first.pixels.dtype
    np.testing.assert_array_equal(again.pixels, first.pixels)
    assert (again.alpha is None) == (first.alpha is None)
    if first.alpha is not None:
        np.testing.assert_array_equal(again.alpha, first.alpha)
    assert again.profile == first.profile
    return first


# -------------------------------------------------------------------------------------------------------------- 16 bits

ARRAYS = {
    "RGB": RGB16,
    "grey": ALPHA16,
    "RGBA": np.concatenate([RGB16, ALPHA16[..., None]], -1),
    "grey and alpha": RGB16[..., :2].copy(),
}


def assert_parts(photo: Photo, array: np.ndarray) -> None:
    """The photo is that of the array (h, w), (h, w, 2), (h, w, 3) or (h, w, 4)."""
    array = np.atleast_3d(array)
    grey, channels = array.shape[-1] < 3, array.shape[-1]
    assert photo.grey == grey and photo.pixels.dtype == array.dtype
    np.testing.assert_array_equal(photo.pixels, np.repeat(array[..., :1], 3, -1) if grey else array[..., :3])
    if channels % 2:
        assert photo.alpha is None
    else:
        np.testing.assert_array_equal(photo.alpha, array[..., -1])


@pytest.mark.parametrize("kind", ARRAYS)
def test_png_of_16_bits(tmp_path, kind):
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(ARRAYS[kind]))
    assert_parts(there_and_back(tmp_path / "a.png"), ARRAYS[kind])
    np.testing.assert_array_equal(imagecodecs.png_decode((tmp_path / "copy.png").read_bytes()), ARRAYS[kind])


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("options", [{}, {"compression": "lzw", "predictor": True}, {"byteorder": ">"}])
def test_tiff_of_16_bits(tmp_path, kind, options):
    array = ARRAYS[kind]
    samples = ["unassalpha"] if np.atleast_3d(array).shape[-1] in (2, 4) else None
    photometric = "minisblack" if kind.startswith("grey") else "rgb"
    options = options | {"planarconfig": "contig"} if samples else options
    tifffile.imwrite(tmp_path / "a.tif", array, photometric=photometric, extrasamples=samples, **options)
    assert_parts(there_and_back(tmp_path / "a.tif"), array)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "copy.tif"), array)


def test_tiff_of_planes(tmp_path):
    planes = np.moveaxis(RGB16, -1, 0)
    tifffile.imwrite(tmp_path / "a.tiff", planes, photometric="rgb", planarconfig="separate")
    assert_parts(there_and_back(tmp_path / "a.tiff"), RGB16)


def test_colours_that_were_multiplied_by_their_alpha_are_divided_by_it(tmp_path):
    alpha = np.full((6, 9, 1), 32768, np.uint16)
    multiplied = np.concatenate([(RGB16 // 2).astype(np.uint16), alpha], -1)
    tifffile.imwrite(tmp_path / "a.tif", multiplied, photometric="rgb", extrasamples=["assocalpha"])
    photo = there_and_back(tmp_path / "a.tif")
    assert np.abs(photo.pixels.astype(int) - RGB16).max() <= 2
    np.testing.assert_array_equal(photo.alpha, alpha[..., 0])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("alpha", [None, ALPHA16])
@pytest.mark.parametrize("endian", "<>")
def test_16_bits_carry_profile_and_exif(tmp_path, suffix, alpha, endian):
    data = Image.Exif()
    data.load(exif(1))
    data.endian = endian
    photo = Photo(RGB16, alpha, profile=SRGB, exif=data.tobytes())
    assert photo.exif[6:8] == {"<": b"II", ">": b"MM"}[endian]
    photos.write(tmp_path / f"a{suffix}", photo)
    assert_kept(tmp_path / f"a{suffix}")
    there_and_back(tmp_path / f"a{suffix}")
    assert_kept(tmp_path / f"copy{suffix}")


def test_deep_grey_of_integers_and_floats(tmp_path):
    values = RGB16[..., 0]
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "i.tif")
    Image.fromarray((values / np.float32(65535)).astype(np.float32)).save(tmp_path / "f.tif")
    tifffile.imwrite(tmp_path / "u.tif", values.astype(np.uint32))
    for name in ("i.tif", "f.tif", "u.tif"):
        assert_parts(there_and_back(tmp_path / name), values)
        assert "its 32 bits became 16" in photos.read(tmp_path / name).note
    Image.fromarray(np.float32([[0, 255]])).save(tmp_path / "x.tif")
    with pytest.raises(ImageError, match="grey values from 0 to 255, wanted 0 to 1"):
        photos.read(tmp_path / "x.tif")
    tifffile.imwrite(tmp_path / "large.tif", np.uint32([[0, 2**32 - 1]]))
    with pytest.raises(ImageError, match=r"grey values from 0 to 4.29497e\+09, wanted 0 to 65535"):
        photos.read(tmp_path / "large.tif")
    for dtype in (np.float32, np.uint32):
        tifffile.imwrite(tmp_path / "colours.tif", RGB16.astype(dtype), photometric="rgb")
        with pytest.raises(ImageError, match=rf"3 channels of {dtype.__name__}; save it with 8 or 16 bits"):
            photos.read(tmp_path / "colours.tif")


def test_16_bits_are_rounded_where_a_format_has_8(tmp_path):
    photos.write(tmp_path / "a.bmp", Photo(RGB16))
    np.testing.assert_array_equal(photos.read(tmp_path / "a.bmp").pixels, np.rint(RGB16 / 257))


def test_a_pgm_of_16_bits(tmp_path):
    Image.fromarray(ALPHA16).save(tmp_path / "a.pgm")
    assert there_and_back(tmp_path / "a.pgm").grey and photos.read(tmp_path / "a.pgm").note == ""
    assert (tmp_path / "copy.pgm").read_bytes() == (tmp_path / "a.pgm").read_bytes()
    photos.write(tmp_path / "colours.pgm", Photo(RGB16))
    assert (tmp_path / "colours.pgm").read_bytes().startswith(b"P6")


# --------------------------------------------------------------------------------------------------------------- 8 bits


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp", ".ppm"])
def test_rgb_and_grey(tmp_path, suffix):
    Image.fromarray(RGB8).save(tmp_path / f"a{suffix}", lossless=True)
    np.testing.assert_array_equal(there_and_back(tmp_path / f"a{suffix}").pixels, RGB8)
    if suffix != ".webp":
        Image.fromarray(RGB8[..., 0]).save(tmp_path / f"g{suffix}")
        assert there_and_back(tmp_path / f"g{suffix}").grey
        assert Image.open(tmp_path / f"copy{suffix}").mode == "L"


@pytest.mark.parametrize(("mode", "back"), [("RGBA", "RGBA"), ("LA", "LA"), ("PA", "RGBA")])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_transparency_is_carried_through(tmp_path, mode, back, suffix):
    image = Image.fromarray(np.concatenate([RGB8, ALPHA8[..., None]], -1)).convert("LA" if mode == "LA" else "RGBA")
    if mode == "PA":
        image = image.quantize(16) if suffix == ".png" else image
    image.save(tmp_path / f"a{suffix}")
    photo = there_and_back(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(photo.alpha, np.array(image.convert("RGBA"))[..., 3])
    with Image.open(tmp_path / f"copy{suffix}") as written:
        assert written.mode == back


def test_colours_under_transparent_pixels_stay_in_webp(tmp_path):
    photos.write(tmp_path / "a.webp", Photo(RGB8, np.zeros_like(ALPHA8)))
    np.testing.assert_array_equal(photos.read(tmp_path / "a.webp").pixels, RGB8)


def test_a_palette_with_a_transparent_colour(tmp_path):
    image = Image.fromarray((np.arange(54).reshape(6, 9) % 3).astype(np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=1)
    photo = there_and_back(tmp_path / "a.png")
    assert photo.pixels[0, 2].tolist() == [0, 0, 255] and photo.pixels.dtype == np.uint8
    np.testing.assert_array_equal(photo.alpha, np.where(np.arange(54).reshape(6, 9) % 3 == 1, 0, 255))


def test_bits(tmp_path):
    Image.fromarray(RGB8[..., 0] > 127).save(tmp_path / "a.png")
    photo = there_and_back(tmp_path / "a.png")
    assert photo.grey and set(np.unique(photo.pixels)) == {0, 255}


@pytest.mark.parametrize("suffix", [".jpg", ".ppm", ".bmp"])
@pytest.mark.parametrize("grey", [False, True])
def test_transparency_is_not_lost_silently(tmp_path, suffix, grey):
    with pytest.raises(ImageError, match=f"{suffix} files are written without transparency; rename the photo to .png"):
        photos.write(tmp_path / f"a{suffix}", Photo(RGB8, ALPHA8, grey))
    assert not list(tmp_path.iterdir())
    photos.write(tmp_path / f"a{suffix}", Photo(RGB8, np.full_like(ALPHA8, 255), grey))  # opaque: nothing is lost
    again = photos.read(tmp_path / f"a{suffix}")
    assert again.alpha is None and again.grey == grey


# ------------------------------------------------------------------------------------------------------------ CMYK, ICC


def cmyk_profile() -> bytes:
    """An ICC profile (version 2) of a press whose sixteen corners are: paper L* 100 without ink, L* 50 or 0 with some.

    Its table lut8 A2B0 has two points along each of the four inks; black ink makes L* 0, any other 50.
    """
    corners = [0 if k else 50 if c + m + y else 100 for c, m, y, k in itertools.product((0, 1), repeat=4)]
    table = b"".join(bytes([round(lightness * 2.55), 128, 128]) for lightness in corners)
    line = bytes(range(256))
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + line * 4 + table + line * 3
    body = struct.pack(">I4sII", 1, b"A2B0", 144, len(lut)) + lut
    size = 128 + len(body)
    head = struct.pack(">I4sI4s4s4s12x4s", size, b"lcms", 0x02100000, b"prtr", b"CMYK", b"Lab ", b"acsp")
    return (head + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)).ljust(128, b"\0") + body


def test_cmyk_becomes_rgb_by_its_profile(tmp_path):
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:, 8:, 1] = 255  # magenta
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.tif", icc_profile=cmyk_profile())
    photo = there_and_back(tmp_path / "a.tif")
    assert "sRGB by its profile" in photo.note
    assert np.abs(photo.pixels[:, :8].astype(int) - 255).max() <= 1
    assert np.abs(photo.pixels[:, 8:].astype(int) - 119).max() <= 2  # L* 50 in sRGB
    assert "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(photo.profile)))


@pytest.mark.parametrize("profile", [b"", b"no profile"])
def test_cmyk_without_a_profile(tmp_path, profile):
    flat = np.broadcast_to(np.array([200, 40, 90], np.uint8), (16, 16, 3))
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "a.jpg", icc_profile=profile)
    photo = photos.read(tmp_path / "a.jpg")
    assert np.abs(photo.pixels.astype(int) - flat).max() <= 4
    assert "CMYK" in photo.note and photo.profile == b""
    photos.write(tmp_path / "b.jpg", photo)
    assert Image.open(tmp_path / "b.jpg").mode == "RGB"


# ---------------------------------------------------------------------------------------------------- EXIF, orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path, orientation):
    Image.fromarray(RGB8).save(tmp_path / "a.png", exif=exif(orientation), icc_profile=SRGB)
    upright = np.array(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    np.testing.assert_array_equal(photos.turn(RGB8, orientation), upright)
    np.testing.assert_array_equal(there_and_back(tmp_path / "a.png").pixels, upright)
    assert_kept(tmp_path / "copy.png")
    deep = tmp_path / "deep.tif"
    tifffile.imwrite(deep, RGB16, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    np.testing.assert_array_equal(there_and_back(deep).pixels, photos.turn(RGB16, orientation))
    Image.fromarray(ALPHA16.astype(np.int32)).save(tmp_path / "i.tif", exif=exif(orientation))
    np.testing.assert_array_equal(there_and_back(tmp_path / "i.tif").pixels[..., 0], photos.turn(ALPHA16, orientation))
    Image.fromarray(RGB8).save(tmp_path / "b.tif", exif=exif(orientation), icc_profile=SRGB)
    np.testing.assert_array_equal(there_and_back(tmp_path / "b.tif").pixels, upright)
    assert_kept(tmp_path / "copy.tif")


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_exif_and_profile_of_other_formats(tmp_path, suffix):
    smooth = np.linspace(0, 255, 32 * 48 * 3).reshape(32, 48, 3).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / f"a{suffix}", quality=95, exif=exif(6), icc_profile=SRGB)
    photo = photos.read(tmp_path / f"a{suffix}")
    assert photo.pixels.shape == (48, 32, 3)
    photos.write(tmp_path / f"b{suffix}", photo)
    assert_kept(tmp_path / f"b{suffix}")
    assert np.abs(photos.read(tmp_path / f"b{suffix}").pixels.astype(int) - photo.pixels).max() <= 4


def test_tags_of_a_tiff_that_tell_how_its_pixels_lie_stay_behind(tmp_path):
    Image.fromarray(RGB8).save(tmp_path / "a.tif", exif=exif(1))
    data = Image.Exif()
    data.load(photos.read(tmp_path / "a.tif").exif)
    assert not photos.LAYOUT_TAGS & set(data) and data[ExifTags.Base.Make] == "Maker"


@pytest.mark.parametrize("array", [RGB8, RGB16])
def test_layers_of_photoshop_which_it_would_show_instead_of_the_result_stay_behind(tmp_path, array):
    layers = b"Adobe Photoshop Document Data Block\0" + bytes(70_000)  # more than a JPEG's EXIF data can be
    more = [(photos.LAYERS, "B", len(layers), layers, True), (271, "s", 0, "Maker", True)]
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extratags=more)
    for name in ("b.tif", "b.jpg"):
        photo = photos.read(tmp_path / "a.tif")
        note = f"{photo.note}; {photos.write(tmp_path / name, photo)}"
        with Image.open(tmp_path / name) as copy:
            assert photos.LAYERS not in copy.getexif() and copy.getexif()[ExifTags.Base.Make] == "Maker"
        assert note.startswith("its layers of Photoshop are left out; ") and "EXIF" not in note


def test_broken_exif_is_left_out(tmp_path, monkeypatch):
    Image.fromarray(RGB8).save(tmp_path / "a.png", exif=exif(1))
    monkeypatch.setattr(Image.Exif, "tobytes", lambda *_: (_ for _ in ()).throw(struct.error("odd tag")))
    photo = photos.read(tmp_path / "a.png")
    assert photo.exif == b"" and "odd tag" in photo.note
    np.testing.assert_array_equal(photo.pixels, RGB8)


# ------------------------------------------------------------------------------------------------------- odd and broken


def test_of_an_animation_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("#ff0000", "#0000ff")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    photo = photos.read(tmp_path / "a.gif")
    assert photo.note == "the first of 2 frames" and (photo.pixels == [255, 0, 0]).all()


def test_one_pixel_and_other_alphabets(tmp_path):
    path = tmp_path / "фото 写真.png"
    Image.fromarray(RGB8[:1, :1]).save(path)
    assert there_and_back(path, tmp_path / "ücopy.png").pixels.shape == (1, 1, 3)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_truncated_16_bits_are_refused(tmp_path, name):
    noise = RNG.integers(0, 65536, (64, 64, 3), np.uint16)
    photos.write(tmp_path / name, Photo(noise))
    if name == "a.tif":
        tifffile.imwrite(tmp_path / name, noise, photometric="rgb", rowsperstrip=8)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ImageError, match=f"^{tmp_path / name}: "):
        photos.read(tmp_path / name)


def test_what_a_format_cannot_hold_is_named(tmp_path):
    with pytest.raises(ImageError, match=f"^{tmp_path / 'a.webp'}: cannot be written .*limit of 16383 pixels"):
        photos.write(tmp_path / "a.webp", Photo(np.zeros((1, 16384, 3), np.uint8)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("further", [0, 1])
def test_what_is_too_long_for_a_jpeg_is_left_out(tmp_path, further):
    long = exif(1).ljust(LONGEST_EXIF + further, b"\0")
    photo = Photo(RGB8, exif=long, tags=Tags(xmp=b"x" * (LONGEST_XMP + further)))
    note = photos.write(tmp_path / "a.jpg", photo)
    again = photos.read(tmp_path / "a.jpg")
    assert note == ("EXIF data and XMP data too long for a JPEG: left out" if further else "")
    assert bool(again.exif) == bool(again.tags.xmp) == (not further)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(imagecodecs, "png_encode", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        photos.write(tmp_path / "a.png", Photo(RGB16))
    assert not list(tmp_path.iterdir())


def test_images_finds_what_is_asked_for(tmp_path):
    for name in ("a.png", "b.mp4", "c.txt", ".d.mp4"):
        (tmp_path / name).touch()
    assert [path.name for path in images.find(tmp_path, {".mp4"})] == ["b.mp4"]


@pytest.mark.parametrize("array, further", [(RGB8, 1), (RGB8, 2), (RGB16, 1)], ids=["8", "8, two", "16"])
def test_unnamed_channels_are_no_transparency(tmp_path, array, further):
    full = np.concatenate([array, *[array[..., :1] // 3] * further], -1)
    tifffile.imwrite(tmp_path / "a.tif", full, photometric="rgb", extrasamples=["unspecified"] * further)
    photo = there_and_back(tmp_path / "a.tif")
    assert_parts(photo, array)
    assert photo.note == f"{further} extra channel{'s' * (further > 1)} left out"


UNASSOCIATED, ASSOCIATED, UNSPECIFIED = 2, 1, 0  # of the tag ExtraSamples
FURTHER = [[UNASSOCIATED], [ASSOCIATED], [UNSPECIFIED], [UNSPECIFIED, UNASSOCIATED], [UNASSOCIATED, UNSPECIFIED]]
FURTHER += [[UNSPECIFIED] * 2, [UNSPECIFIED] * 3]
NAMES = {UNASSOCIATED: "alpha", ASSOCIATED: "multiplied", UNSPECIFIED: "ink"}


@pytest.mark.parametrize("further", FURTHER, ids=lambda further: "-".join(map(NAMES.get, further)))
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb"])
@pytest.mark.parametrize("array", [RGB8, RGB16], ids=["8", "16"])
def test_tiffs_with_further_channels(tmp_path, array, photometric, further):
    peak = np.iinfo(array.dtype).max
    colours = array if photometric == "rgb" else array[..., :1]
    alpha = np.where(np.arange(54).reshape(6, 9, 1) % 3, peak, 0).astype(array.dtype)  # multiplying by it loses nothing
    stored = peak - colours if photometric == "miniswhite" else colours
    full = np.concatenate([stored, *(alpha if kind else array[..., 1:2] for kind in further)], -1)
    forms = [{}, {"compression": "zlib"}, {"byteorder": ">"}]
    for form in [*forms, {"planarconfig": "separate"}] if any(further) else forms:
        data = np.moveaxis(full, -1, 0) if "planarconfig" in form else full
        options = {"planarconfig": "contig", "photometric": photometric, "extrasamples": further} | form
        tifffile.imwrite(tmp_path / "a.tif", data, **options)
        photo = there_and_back(tmp_path / "a.tif")
        seen = slice(None) if ASSOCIATED not in further else alpha[..., 0] > 0
        assert photo.grey == (photometric != "rgb") and photo.pixels.dtype == array.dtype
        np.testing.assert_array_equal(photo.pixels[seen], np.broadcast_to(colours, RGB8.shape)[seen])
        assert (photo.alpha is not None) == any(further)
        assert photo.alpha is None or (photo.alpha == alpha[..., 0]).all()
        count = len(further) - any(further)
        assert photo.note == (f"{count} extra channel{'s' * (count > 1)} left out" if count else "")
        white = np.where(alpha > 0, photo.pixels, peak) if any(further) else photo.pixels
        assert np.abs(images.read(tmp_path / "a.tif") - white * (255 / peak)).max() <= 1


def test_cmyk_with_transparency(tmp_path):
    ink = np.concatenate([RGB8, RGB8[..., :2]], -1)
    for name, channels in (("a.tif", 4), ("b.tif", 5)):
        extra = {"extrasamples": ["unassalpha"]} if channels == 5 else {}
        tifffile.imwrite(tmp_path / name, ink[..., :channels], photometric="separated", planarconfig="contig", **extra)
    one, other = photos.read(tmp_path / "a.tif"), photos.read(tmp_path / "b.tif")
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert other.note.startswith("1 extra channel left out; ") and other.alpha is None


def test_too_many_channels_are_refused_with_their_number(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((6, 9, 7), np.uint8), photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageError, match="a TIFF with 7 channels, in a form that is not read; save it as RGB or grey"):
        photos.read(tmp_path / "a.tif")


def test_a_turned_tiff_with_further_channels(tmp_path):
    full = np.concatenate([RGB8[..., :1], ALPHA8[..., None], RGB8[..., :1]], -1)
    options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": [UNSPECIFIED, UNASSOCIATED]}
    tifffile.imwrite(tmp_path / "a.tif", full, extratags=[(274, "H", 1, 6, True)], **options)
    photo = there_and_back(tmp_path / "a.tif")
    np.testing.assert_array_equal(photo.pixels[..., 0], np.rot90(RGB8[..., 0], -1))
    assert images.size(tmp_path / "a.tif") == photo.pixels.shape[:2] == (9, 6)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("place", [-18, -60], ids=["check sum", "pixels"])
def test_a_png_with_a_broken_byte_is_refused(tmp_path, bits, place):
    noise = RNG.integers(0, 1 << bits, (40, 40, 3)).astype(f"uint{bits}")
    photos.write(tmp_path / "a.png", Photo(noise))
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[place] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match="cannot be read, truncated or broken"):
        photos.read(tmp_path / "a.png")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_big_tiff_keeps_its_tags(tmp_path, dtype):
    # Without tifffile's own metadata, a second description that some releases of Pillow take for the first.
    tags = {"description": "A day", "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 6, 3), dtype), photometric="rgb", bigtiff=True, **tags)
    photo = there_and_back(tmp_path / "a.tif")
    assert photo.note == "" and Image.open(tmp_path / "copy.tif").tag_v2[270] == "A day"
