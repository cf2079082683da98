"""What a photo's file says besides its pixels comes back, or is named."""

import re
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from b2b_jax import images, levels
from b2b_jax.inference import photos, tags

RGB = np.linspace(0, 255, 24 * 32 * 3).reshape(24, 32, 3).astype(np.uint8)
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description xmp:Rating='4' tiff:Orientation='6'/></x:xmpmeta>"
IPTC = b"\x1c\x02\x78\x00\x05Hello\x1c\x02\x50\x00\x02Me"


def segment(number: int, data: bytes) -> bytes:
    return b"\xff" + bytes([number]) + struct.pack(">H", len(data) + 2) + data


def copy(source, target=None):
    target = target or source.with_name(f"copy{source.suffix}")
    photo = photos.read(source)
    return target, photo, photos.write(target, photo)


@pytest.mark.parametrize(
    ("suffix", "dpi"), [(".jpg", (240, 240)), (".png", (96, 120)), (".bmp", (72, 72)), (".tif", (600, 300))]
)
def test_resolution(tmp_path, suffix, dpi):
    Image.fromarray(RGB).save(tmp_path / f"a{suffix}", dpi=dpi)
    target, _, note = copy(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(np.array(Image.open(target).info["dpi"], float), dpi, atol=0.1)
    assert note == ""


def test_resolution_of_a_turned_photo_turns_with_it(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(RGB).save(tmp_path / "a.jpg", dpi=(300, 150), exif=exif)
    assert Image.open(copy(tmp_path / "a.jpg")[0]).info["dpi"] == (150, 300)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_keep_resolution_and_xmp(tmp_path, suffix):
    deep = RGB.astype(np.uint16) * 257
    kept = tags.Tags(dpi=(300.0, 300.0), xmp=XMP)
    photos.write(tmp_path / f"a{suffix}", photos.Photo(deep, tags=kept))
    target, photo, _ = copy(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(photo.pixels, deep)
    with Image.open(target) as image:
        image.load()
        assert image.info["xmp"] == tags.upright(XMP)
        np.testing.assert_allclose(np.array(image.info["dpi"], float), 300, atol=0.1)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("exif", [b"", b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"])
def test_xmp_is_kept_and_upright(tmp_path, suffix, exif):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    options = {"pnginfo": info} if suffix == ".png" else {"tiffinfo": {700: XMP}} if suffix == ".tif" else {"xmp": XMP}
    Image.fromarray(RGB).save(tmp_path / f"a{suffix}", **options, **({"exif": exif} if exif else {}))
    with Image.open(copy(tmp_path / f"a{suffix}")[0]) as image:
        image.load()
        assert image.info["xmp"] == XMP.replace(b"'6'", b"'1'")


@pytest.mark.parametrize("form", [b'tiff:Orientation="8"', b"<tiff:Orientation>3</tiff:Orientation>"])
def test_every_form_of_orientation_in_xmp(form):
    assert tags.upright(form) == re.sub(rb"\d", b"1", form)


def test_iptc_comment_and_long_xmp_of_a_jpeg(tmp_path):
    resource = b"8BIM" + struct.pack(">HHI", 0x0404, 0, len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
    long = tags.XMP_EXTENSION + b"A" * 40 + b"<x/>"
    extra = segment(0xED, b"Photoshop 3.0\0" + resource) + segment(0xE1, long)
    Image.fromarray(RGB).save(tmp_path / "a.jpg", extra=extra, comment=b"by me", xmp=XMP)
    with Image.open(copy(tmp_path / "a.jpg")[0]) as image:
        assert image.info["photoshop"][0x0404] == IPTC and image.info["comment"] == b"by me"
        assert ("APP1", long) in image.applist


@pytest.mark.parametrize("deep", [False, True])
def test_iptc_of_a_tiff(tmp_path, deep):
    array = RGB.astype(np.uint16) * 257 if deep else RGB
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", extratags=[(33723, 7, len(IPTC), IPTC, True)])
    with tifffile.TiffFile(copy(tmp_path / "a.tif")[0]) as file:
        assert bytes(file.pages[0].tags[33723].value) == IPTC


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", [b"gAMA", b"cHRM", b"cICP"])
def test_colour_chunks_of_a_png(tmp_path, name, deep):
    data = {
        b"gAMA": struct.pack(">I", 100_000),
        b"cHRM": struct.pack(">8I", *range(1, 9)),
        b"cICP": bytes([9, 16, 0, 1]),
    }
    Image.fromarray((RGB[..., 0].astype(np.uint16) * 257) if deep else RGB).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    chunk = struct.pack(">I", len(data[name])) + name + data[name] + struct.pack(">I", zlib.crc32(name + data[name]))
    (tmp_path / "a.png").write_bytes(content[:33] + chunk + content[33:])
    target, photo, note = copy(tmp_path / "a.png")
    assert chunk in target.read_bytes().split(b"IDAT")[0] and note == ""
    Image.fromarray(RGB).save(tmp_path / "b.jpg")
    assert "no PNG colour data" in photos.write(tmp_path / "b.jpg", photo)


@pytest.mark.parametrize(("suffix", "coded"), [(".avif", (9, 16)), (".avif", (12, 18)), (".heic", (9, 18))])
def test_the_coding_of_an_hdr_photo(tmp_path, suffix, coded):
    if suffix == ".heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    Image.fromarray(RGB).save(tmp_path / f"a{suffix}")
    data = (tmp_path / f"a{suffix}").read_bytes()
    place = data.index(b"colrnclx") + 8
    (tmp_path / f"a{suffix}").write_bytes(data[:place] + struct.pack(">HH", *coded) + data[place + 4 :])
    target, photo, note = copy(tmp_path / f"a{suffix}", tmp_path / "b.png")
    assert photo.tags.colours == ((b"cICP", bytes([*coded, 0, 1])),) and note == ""
    assert b"cICP" + bytes([*coded, 0, 1]) in target.read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(data)
    assert photos.read(tmp_path / f"a{suffix}").tags.colours == ()


def test_the_profile_of_jpeg_2000(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(RGB).save(tmp_path / "a.jp2")
    data = (tmp_path / "a.jp2").read_bytes()
    place = data.index(b"colr") - 4
    size = int.from_bytes(data[place : place + 4], "big")
    box = struct.pack(">I", 11 + len(srgb)) + b"colr\2\0\0" + srgb
    header = data.index(b"jp2h") - 4
    longer = int.from_bytes(data[header : header + 4], "big") + len(box) - size
    changed = data[:header] + struct.pack(">I", longer) + data[header + 4 : place] + box + data[place + size :]
    (tmp_path / "a.jp2").write_bytes(changed)
    target, _, _ = copy(tmp_path / "a.jp2", tmp_path / "b.png")
    assert Image.open(target).info["icc_profile"] == srgb
    (tmp_path / "a.jp2").write_bytes(data)
    assert photos.read(tmp_path / "a.jp2").profile == b""


def test_texts_of_a_png(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a street, sharp")
    info.add_text("Author", "Å", zip=True)
    Image.fromarray(RGB).save(tmp_path / "a.png", pnginfo=info)
    with Image.open(copy(tmp_path / "a.png")[0]) as image:
        assert image.text == {"parameters": "a street, sharp", "Author": "Å"}


@pytest.mark.parametrize("suffix", [".bmp", ".ppm", ".webp"])
def test_what_a_format_cannot_hold_is_said(tmp_path, suffix):
    note = photos.write(tmp_path / f"a{suffix}", photos.Photo(RGB, tags=tags.Tags(dpi=(9, 9), iptc=IPTC, xmp=XMP)))
    assert (
        "no IPTC data" in note
        and ("XMP" in note) == (suffix != ".webp")
        and ("resolution" in note) == (suffix != ".bmp")
    )


# ------------------------------------------------------------------------------------------------- further pictures


def test_the_other_pictures_of_a_file_are_named(tmp_path):
    pictures = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    pictures[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=pictures[1:])
    assert "the first of 2 pictures" in photos.read(tmp_path / "a.jpg").note
    for name in ("a.webp", "b.png", "c.tif"):
        first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
        first.save(tmp_path / name, save_all=True, append_images=[second], lossless=True)
        photo = photos.read(tmp_path / name)
        assert photo.note == "the first of 2 frames"
        np.testing.assert_array_equal(photo.pixels, RGB)


@pytest.mark.parametrize("xmp", [b"<x hdrgm:Version='1.0'/>", b"<x GCamera:MicroVideo='1'/>"])
def test_xmp_of_parts_that_stay_behind(tmp_path, xmp):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", xmp=xmp)
    target, photo, _ = copy(tmp_path / "a.jpg")
    assert "are left out" in photo.note and "xmp" not in Image.open(target).info


@pytest.mark.parametrize("deep", [False, True])
def test_a_tiff_that_begins_with_a_reduced_copy(tmp_path, deep):
    array = RGB.astype(np.uint16) * 257 if deep else RGB
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(array[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
        file.write(array, photometric="rgb", metadata=None)
    np.testing.assert_array_equal(photos.read(tmp_path / "a.tif").pixels, array)
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif"), RGB)
    assert images.size(tmp_path / "a.tif") == RGB.shape[:2]
    tifffile.imwrite(tmp_path / "b.tif", array, photometric="rgb", subfiletype=1)
    with pytest.raises(images.ImageError, match="only a reduced copy"):
        images.read(tmp_path / "b.tif")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("deep", [False, True])
def test_the_size_of_a_turned_tiff_is_that_of_its_pixels(tmp_path, orientation, deep):
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", RGB.astype(np.uint16) if deep else RGB, photometric="rgb", extratags=tag)
    assert images.size(tmp_path / "a.tif") == images.read(tmp_path / "a.tif").shape[:2]
    assert images.size(tmp_path / "a.tif") == photos.read(tmp_path / "a.tif").pixels.shape[:2]


@pytest.mark.parametrize("deep", [False, True])
def test_a_tiff_without_pixels_for_all_rows(tmp_path, deep):
    tifffile.imwrite(tmp_path / "a.tif", RGB.astype(np.uint16) if deep else RGB, photometric="rgb", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages[0].tags[257].overwrite(60_000)
    for read in (images.read, photos.read):
        with pytest.raises(images.ImageError, match="pixels for 24 of its 60000 rows"):
            read(tmp_path / "a.tif")


# ----------------------------------------------------------------------------------------------------- white is zero


@pytest.mark.parametrize(
    "options", [{}, {"compression": "deflate", "predictor": True}, {"byteorder": ">", "tile": (16, 16)}]
)
def test_a_tiff_in_which_white_is_zero(tmp_path, options):
    seen = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (24, 1))
    tifffile.imwrite(tmp_path / "a.tif", 65535 - seen, photometric="miniswhite", **options)
    np.testing.assert_array_equal(photos.read(tmp_path / "a.tif").pixels[..., 0], seen)
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif")[..., 1], levels.TO_8_BITS[seen])
    target, *_ = copy(tmp_path / "a.tif")
    np.testing.assert_array_equal(images.read(target)[..., 1], levels.TO_8_BITS[seen])


def test_twelve_bits_of_grey_are_spread(tmp_path):
    values = np.arange(4096).reshape(64, 64)
    packed = np.stack(
        [values[:, ::2] >> 4, (values[:, ::2] & 15) << 4 | values[:, 1::2] >> 8, values[:, 1::2] & 255], -1
    )
    tifffile.imwrite(
        tmp_path / "a.tif", packed.astype(np.uint8).reshape(64, 96), photometric="minisblack", metadata=None
    )
    for photometric, seen in ((1, values), (0, 4095 - values)):
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
            page = file.pages[0]
            for tag, value in ((256, 64), (258, 12), (262, photometric)):
                page.tags[tag].overwrite(value)
        photo = photos.read(tmp_path / "a.tif")
        np.testing.assert_allclose(photo.pixels[..., 0], np.rint(seen * 65535 / 4095), atol=1)
