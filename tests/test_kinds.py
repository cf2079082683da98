"""What files are: their bytes decide, each goes to the decoder of its kind, and to no other."""

import io
import os
import struct
import sys

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from b2b_jax import images, kinds
from b2b_jax.images import ImageError
from b2b_jax.inference import jpeg_xl, photos

SMOOTH = np.linspace(0, 255, 24 * 32 * 3).reshape(24, 32, 3).astype(np.uint8)
MOSAIC = np.add.outer(np.arange(24), np.arange(32) * 900).astype(np.uint16)
CFA = [(33421, "H", 2, (2, 2), True), (33422, "B", 4, bytes([0, 1, 1, 2]), True)]


def nef(path, byteorder="<"):
    """A thumbnail first, the sensor's pixels in a directory within its own, as Nikon does."""
    with tifffile.TiffWriter(path, byteorder=byteorder) as file:
        file.write(SMOOTH[::4, ::4], photometric="rgb", subfiletype=1, subifds=2, metadata=None)
        file.write(SMOOTH[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        file.write(MOSAIC, photometric=32803, metadata=None, extratags=CFA)


def linear_dng(path):
    """DNG as phones write it, whose pixels are no mosaic any more."""
    version = [(50706, "B", 4, bytes([1, 4, 0, 0]), True)]
    tifffile.imwrite(path, SMOOTH.astype(np.uint16), photometric=34892, metadata=None, extratags=version)


def big_dng(path):
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(SMOOTH[::4, ::4], photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        file.write(MOSAIC, photometric=32803, metadata=None, extratags=CFA)


def second_page(path):
    """The mosaic on a page of its own behind a preview, without any tag of its pattern."""
    with tifffile.TiffWriter(path, byteorder=">") as file:
        file.write(SMOOTH, photometric="rgb", metadata=None)
        file.write(MOSAIC, photometric=32803, metadata=None)


def canon(path):
    tifffile.imwrite(path, SMOOTH, photometric="rgb")
    data = bytearray(path.read_bytes())
    # The first directory moves behind Canon's mark.
    start = struct.unpack_from("<I", data, 4)[0]
    struct.pack_into("<I", data, 4, start + 8)
    path.write_bytes(bytes(data[:8]) + b"CR\2\0" + bytes(4) + bytes(data[8:]))


RAWS = {"nef": nef, "nef >": lambda p: nef(p, ">"), "linear": linear_dng, "big": big_dng, "second": second_page}


@pytest.mark.parametrize("name", ["a.dng", "a.tif", "a.jpg", "a"])
@pytest.mark.parametrize("make", [*RAWS.values(), canon], ids=[*RAWS, "canon"])
def test_a_raw_photo_is_known_by_its_directories(tmp_path, make, name):
    make(tmp_path / name)
    assert images.kind(tmp_path / name).decoder == kinds.RAW


def test_a_tiff_of_a_raw_photos_name_is_one(tmp_path):
    tifffile.imwrite(tmp_path / "a.arw", SMOOTH, photometric="rgb")
    Image.fromarray(SMOOTH).save(tmp_path / "a.nef", "PNG")
    assert images.kind(tmp_path / "a.arw").decoder == kinds.RAW
    assert images.kind(tmp_path / "a.nef").decoder == "PNG"


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}])
def test_a_plain_tiff_is_no_raw_photo(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([SMOOTH] * 3), photometric="rgb", **options)
    assert images.kind(tmp_path / "a.tif") == kinds.TIFF


def test_directories_that_chain_for_ever_or_lead_nowhere(tmp_path):
    loop = b"II*\0\x08\0\0\0" + b"\1\0" + struct.pack("<HHII", 330, 4, 1, 8) + struct.pack("<I", 8)
    many = b"MM\0*\0\0\0\x08\xff\xff" + struct.pack(">HHII", 330, 4, 0xFFFFFFFF, 0xFFFFFFF0)
    for data in (loop, many, b"II*\0\xff\xff\xff\xff", b"II+\0\x08\0\0\0" + b"\xff" * 8, b"II*\0"):
        assert kinds.of(io.BytesIO(data)) == kinds.TIFF


@pytest.mark.parametrize(("name", "make"), [("a.nef", nef), ("b.dng", big_dng)])
def test_a_raw_photo_is_whole_or_refused(tmp_path, monkeypatch, name, make):
    make(tmp_path / name)
    monkeypatch.setitem(sys.modules, "rawpy", None)
    monkeypatch.delitem(sys.modules, "b2b_jax.raws", raising=False)
    for read in (images.read, images.size, photos.read):
        with pytest.raises(ImageError, match=rf"{name}: a raw photo; pip install 'b2b_jax\[raw\]'"):
            read(tmp_path / name)


def test_a_raw_photo_is_developed(tmp_path):
    pytest.importorskip("rawpy")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(SMOOTH[::4, ::4], photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        mosaic = np.full((64, 96), 400, np.uint16)
        mosaic[:, 48:] = 60000
        file.write(mosaic, photometric=32803, metadata=None, extratags=CFA)
    photo, plain = photos.read(tmp_path / "a.tif"), images.read(tmp_path / "a.tif")
    assert photo.pixels.shape == plain.shape == (64, 96, 3) == (*images.size(tmp_path / "a.tif"), 3)
    assert photo.pixels.dtype == np.uint16 and np.abs(photo.pixels // 257 - plain.astype(int)).max() <= 1
    assert plain[:, :40].max() < 30 and plain[:, 56:].min() > 200
    photos.write(tmp_path / "out.tif", photo)
    assert images.kind(tmp_path / "out.tif") == kinds.TIFF


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_a_raw_photo_that_is_cut_off_is_refused(tmp_path, share):
    pytest.importorskip("rawpy")
    nef(tmp_path / "a.nef")
    data = (tmp_path / "a.nef").read_bytes()
    start = data.index(MOSAIC.tobytes()[:64])
    (tmp_path / "a.nef").write_bytes(data[: start + int((len(data) - start) * share)])
    with pytest.raises(ImageError, match=r"LibRaw: Input/output error|of a rare variety"):
        photos.read(tmp_path / "a.nef")


# ------------------------------------------------------------------------------------------------------ other decoders


@pytest.mark.parametrize(
    "start", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xc5\xd0\xd3\xc6" + bytes(40)]
)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_postscript_never_reaches_ghostscript(tmp_path, monkeypatch, start, name):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / name).write_bytes(start + b"showpage\n%%EOF\n")
    for read in (images.read, photos.read, images.size):
        with pytest.raises(ImageError, match="not an image, but PostScript"):
            read(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "says"), [(b"%PDF-1.7\n", "PDF"), (b"8BPS\0\1", "Photoshop"), (b"\1\2\3", "start on")]
)
def test_what_no_decoder_sees(tmp_path, content, says):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=says):
        images.read(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "QOI"])
def test_a_photo_of_a_videos_name_is_a_photo(tmp_path, kind):
    Image.fromarray(SMOOTH).save(tmp_path / "a.mp4", kind)
    assert images.kind(tmp_path / "a.mp4").decoder == kind
    assert images.read(tmp_path / "a.mp4").shape == SMOOTH.shape


@pytest.mark.parametrize(
    ("head", "decoder"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiafMA1B", "AVIF"),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0msf1hevc", "HEIF"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", kinds.RAW),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", ""),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", ""),
        (b"\0\0\0\x08wide\0\0\1\0mdat", ""),
    ],
)
def test_brands(head, decoder):
    found = kinds.of(io.BytesIO(head))
    assert found.decoder == decoder and found.is_video == (not decoder)


@pytest.mark.parametrize(
    "head", [b"G" + bytes(187) + b"G" + bytes(9), bytes(4) + b"G" + bytes(191) + b"G", b"\x1aE\xdf\xa3", b"\0\0\1\xba"]
)
def test_videos(head):
    assert kinds.of(io.BytesIO(head.ljust(400, b"\0"))).is_video


@pytest.mark.parametrize("turned", [1, 6])
def test_heic(tmp_path, turned):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif[274], exif[271] = turned, "Maker"
    Image.fromarray(SMOOTH).save(tmp_path / "a.mp4", "HEIF", quality=95, exif=exif)
    wanted = SMOOTH  # the EXIF tag says nothing: the format has a box of its own for it
    photo = photos.read(tmp_path / "a.mp4")
    assert images.size(tmp_path / "a.mp4") == wanted.shape[:2]
    for pixels in (images.read(tmp_path / "a.mp4"), photo.pixels):
        assert pixels.shape == wanted.shape and np.abs(pixels.astype(int) - wanted).mean() < 6
    again = Image.Exif()
    again.load(photo.exif)
    assert again[271] == "Maker" and again.get(274, 1) == 1


def test_ten_bits_of_heic_are_said(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    deep = np.repeat(MOSAIC[..., None], 3, -1)
    heif.from_bytes(mode="RGB;16", size=(32, 24), data=deep.tobytes()).save(tmp_path / "a.heic")
    assert "its 10 bits became 8" in photos.read(tmp_path / "a.heic").note


def test_jpeg_xl(tmp_path):
    pytest.importorskip("pillow_jxl")
    exif = Image.Exif()
    exif[274] = 6  # which says nothing: the format stores photos upright
    Image.fromarray(SMOOTH).save(tmp_path / "a.png", "JXL", lossless=True, exif=exif.tobytes())
    np.testing.assert_array_equal(images.read(tmp_path / "a.png"), SMOOTH)
    np.testing.assert_array_equal(photos.read(tmp_path / "a.png").pixels, SMOOTH)


DEEP = (np.arange(24 * 32 * 4).reshape(24, 32, 4) * 21).astype(np.uint16)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("bits", "container"), [(10, False), (12, True), (14, False), (16, True)])
def test_deep_jpeg_xl_keeps_its_levels(tmp_path, bits, container, channels):
    pytest.importorskip("pillow_jxl")
    deep = np.ascontiguousarray(DEEP[..., :channels] >> (16 - bits)).squeeze()
    data = imagecodecs.jpegxl_encode(deep, lossless=True, bitspersample=bits, usecontainer=container)
    (tmp_path / "a.jxl").write_bytes(data)
    found = photos.read(tmp_path / "a.jxl")
    assert found.note == "" and found.pixels.dtype == np.uint16 and jpeg_xl.depth(tmp_path / "a.jxl") == bits
    array = np.rint(deep.reshape(24, 32, channels) / (2**bits - 1) * 65535)
    np.testing.assert_allclose(found.pixels[..., 0], array[..., 0], atol=1)
    if channels >= 3:
        np.testing.assert_allclose(found.pixels, array[..., :3], atol=1)
    if channels % 2 == 0:
        np.testing.assert_allclose(found.alpha, array[..., -1], atol=1)
    photos.write(tmp_path / "b.png", found)
    np.testing.assert_array_equal(photos.read(tmp_path / "b.png").pixels, found.pixels)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize(("bits", "container"), [(12, "jp2"), (16, "j2k")])
def test_deep_jpeg_2000_keeps_its_levels(tmp_path, bits, container, channels):
    """White above all, which Pillow makes black."""
    deep = np.ascontiguousarray(DEEP[..., :channels] >> (16 - bits))
    deep[:2] = 2**bits - 1
    path = tmp_path / f"a.{container}"
    path.write_bytes(imagecodecs.jpeg2k_encode(deep, level=0, bitspersample=bits, codecformat=container))
    wanted, found = np.rint(deep / (2**bits - 1) * 65535), photos.read(path)
    assert found.note == "" and found.pixels.dtype == np.uint16 and found.grey == (channels == 2)
    colours = wanted[..., :1] if channels == 2 else wanted[..., :3]
    np.testing.assert_allclose(found.pixels, np.broadcast_to(colours, (24, 32, 3)), atol=1)
    if channels % 2 == 0:
        np.testing.assert_allclose(found.alpha, wanted[..., -1], atol=1)
    alpha = wanted[..., -1:] / 65535 if channels % 2 == 0 else 1.0
    seen = colours / 65535 * alpha + 1 - alpha
    np.testing.assert_allclose(images.read(path), np.broadcast_to(seen * 255, (24, 32, 3)), atol=2)
    for size in (path.stat().st_size - 30, path.stat().st_size // 2, 100):
        path.write_bytes(path.read_bytes()[:size])
        for reading in (photos.read, images.read):
            with pytest.raises(ImageError, match=rf"^{path}: "):
                reading(path)


@pytest.mark.parametrize(
    ("largest", "note"), [(255, ""), (4095, "its 12 bits became 8"), (65535, "its 16 bits became 8")]
)
def test_deep_ppm_is_said_to_lose_bits(tmp_path, largest, note):
    levels = np.arange(16 * 8 * 3) * largest // 383
    raw = levels.astype(">u2" if largest > 255 else "u1").tobytes()
    (tmp_path / "a.ppm").write_bytes(b"P6\n# 16 bits? 1 2\n16 8\n%d\n" % largest + raw)
    found = photos.read(tmp_path / "a.ppm")
    assert found.note == note
    np.testing.assert_allclose(found.pixels.ravel(), levels * 255 / largest, atol=1)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".png", ".tif"])
def test_bits_that_a_format_cannot_hold_are_said(tmp_path, suffix):
    """A deep PNG under any name is written under that name."""
    note = photos.write(tmp_path / f"a{suffix}", photos.Photo(DEEP[..., :3]))
    assert note == ("" if suffix in (".png", ".tif") else "its 16 bits became 8")


def test_floats_of_jpeg_xl_are_said_and_a_broken_one_is_a_line(tmp_path):
    pytest.importorskip("pillow_jxl")
    floats = (DEEP[..., :3] / 65535).astype(np.float32)
    (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(floats, lossless=True))
    assert "its 32 bits became 8" in photos.read(tmp_path / "a.jxl").note
    whole = imagecodecs.jpegxl_encode(np.ascontiguousarray(DEEP[..., :3]), lossless=True)
    for length in (len(whole) // 2, 40, 13):
        (tmp_path / "a.jxl").write_bytes(whole[:length])
        with pytest.raises(ImageError, match=rf"^{tmp_path}/a\.jxl: "):
            photos.read(tmp_path / "a.jxl")


@pytest.mark.parametrize("size", [(24, 40), (8, 8), (24, 24), (300, 17), (1, 700)])
def test_the_depth_of_jpeg_xl_is_read_whatever_the_size(tmp_path, size):
    for bits in (8, 9, 16):
        array = np.zeros((*size, 3), np.uint8 if bits == 8 else np.uint16)
        (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(array, lossless=True, bitspersample=bits))
        assert jpeg_xl.depth(tmp_path / "a.jxl") == bits


@pytest.mark.parametrize(("head", "extra"), [(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heif"), (b"\xff\x0a\0", "jxl")])
def test_an_extra_that_is_missing_is_named(tmp_path, monkeypatch, head, extra):
    (tmp_path / "a.jpg").write_bytes(head)
    for module in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImageError, match=rf"pip install 'b2b_jax\[{extra}\]'"):
        images.read(tmp_path / "a.jpg")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink(path, path), os.mkdir])
def test_pipes_loops_and_folders_are_not_opened(tmp_path, make):
    make(tmp_path / "a.png")
    for read in (images.read, images.kind, images.size, photos.read):
        with pytest.raises(ImageError, match=f"^{tmp_path}/a.png: "):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("size", [1, 4, 9, 189, 193, 196, 200])
def test_short_files_and_those_with_a_g_where_packets_begin(size):
    data = (b"GIF89a" + b"G" * 250)[:size]
    assert kinds.of(io.BytesIO(data)).decoder == ("GIF" if size >= 4 else "")
    data = (b"\x89PNG\r\n\x1a\n" + b"G" * 250)[:size]
    assert not kinds.of(io.BytesIO(data)).is_video
