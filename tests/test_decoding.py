"""The quick way to a photo's pixels gives those of Pillow, bit for bit, or is not taken, whatever befell the file."""

import io
import random
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms

from b2b_jax import decoding, images
from b2b_jax.images import ImageError
from b2b_jax.inference import photos

SMOOTH = np.cumsum(np.random.default_rng(0).normal(0, 6, (45, 61, 3)), axis=1) + 128
PHOTO = Image.fromarray(np.clip(SMOOTH, 0, 255).astype(np.uint8))


def encoded(photo=PHOTO, **settings):
    content = io.BytesIO()
    photo.save(content, **settings)
    return content.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


PNG, JPEG = encoded(format="PNG"), encoded(format="JPEG", quality=95, subsampling=0)


def with_chunk(name, data, before=b"IDAT"):
    place = PNG.index(before) - 4
    return PNG[:place] + chunk(name, data) + PNG[place:]


def oriented(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    return exif


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOUR = struct.pack(">HHH", *PHOTO.getpixel((0, 0)))
PLAIN = {
    "png": PNG,
    "profile": encoded(format="PNG", icc_profile=PROFILE),
    "gamma": with_chunk(b"gAMA", struct.pack(">I", 100_000)),
    "broken profile": with_chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile")),
    "significant bits": with_chunk(b"sBIT", b"\5\6\5"),
    "text": with_chunk(b"tEXt", b"Software\0exif"),
    "background": with_chunk(b"bKGD", COLOUR),
    "jpeg": JPEG,
    "jpeg 4:2:2": encoded(format="JPEG", subsampling=1),
    "jpeg 4:2:0": encoded(format="JPEG", quality=60),
    "jpeg without YCbCr": encoded(format="JPEG", keep_rgb=True),
    "jpeg with restarts": encoded(format="JPEG", restart_marker_rows=1),
    "jpeg with profile": encoded(format="JPEG", icc_profile=PROFILE, exif=oriented(1)),
}
OTHER = {
    "transparent colour": with_chunk(b"tRNS", COLOUR),
    "turned": encoded(format="JPEG", exif=oriented(6)),
    "turned png": encoded(format="PNG", exif=oriented(8)),
    "turned behind its pixels": with_chunk(b"eXIf", oriented(3).tobytes().removeprefix(b"Exif\0\0"), b"IEND"),
    "16-bit": imagecodecs.png_encode(np.asarray(PHOTO, np.uint16) * 257),
    "turned by text": with_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n8\n" + oriented(8).tobytes().hex().encode()),
    "turned by XMP": with_chunk(b"tEXt", b'XML:com.adobe.xmp\0<x tiff:Orientation="6"/>'),
    "grey": encoded(PHOTO.convert("L"), format="PNG"),
    "grey jpeg": encoded(PHOTO.convert("L"), format="JPEG"),
    "palette": encoded(PHOTO.quantize(8), format="PNG"),
    "alpha": encoded(PHOTO.convert("RGBA"), format="PNG"),
    "CMYK": encoded(PHOTO.convert("CMYK"), format="JPEG"),
    "progressive": encoded(format="JPEG", progressive=True),
    "animated": encoded(format="PNG", save_all=True, append_images=[PHOTO.rotate(180)]),
    "with a tail": JPEG + b"tail",
    "tiff": encoded(format="TIFF"),
}
UPRIGHT = ("turned", "turned png", "turned by text", "turned by XMP")


def taken(data):
    with Image.open(io.BytesIO(data)) as image:
        return decoding.plain(image) is not None


def by_pillow(data, patch):
    """The pixels, or what is said of the file, where nothing is decoded quickly."""
    with patch.context() as context:
        context.setattr(decoding, "DECODERS", {})
        return result(data)


def result(data):
    try:
        return images.decode(data, "photo")
    except ImageError as error:
        return str(error)


def same(one, other):
    return one == other if isinstance(other, str) else isinstance(one, np.ndarray) and np.array_equal(one, other)


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_photos_have_the_pixels_of_pillow(kind, monkeypatch, capfd):
    assert taken(PLAIN[kind])
    found = images.decode(PLAIN[kind], kind)
    assert found.flags.writeable and same(found, by_pillow(PLAIN[kind], monkeypatch))
    assert same(found, np.asarray(Image.open(io.BytesIO(PLAIN[kind]))))
    assert not capfd.readouterr().err  # libpng would complain of the profile, for every photo


@pytest.mark.parametrize("kind", OTHER)
def test_other_photos_are_left_to_pillow(kind, monkeypatch):
    assert not taken(OTHER[kind])
    found = images.decode(OTHER[kind], kind)
    assert found.shape == ((61, 45, 3) if kind in UPRIGHT else (45, 61, 3))
    assert same(found, by_pillow(OTHER[kind], monkeypatch))


@pytest.mark.parametrize("kind", ["png", "jpeg", "jpeg 4:2:0", "progressive"])
def test_a_damaged_file_gives_what_pillow_gives(kind, monkeypatch):
    data, chance, outcomes = (PLAIN | OTHER)[kind], random.Random(kind), set()
    for _ in range(200):
        damaged = damage(data, chance)
        found = result(damaged)
        assert same(found, by_pillow(damaged, monkeypatch))
        outcomes.add(type(found))
    assert outcomes == {str, np.ndarray}


def damage(data, chance):
    """The file cut off, shorn of a piece, or with a few wrong bytes, mostly near its end."""
    place = chance.randrange(1, len(data))
    kind = chance.randrange(5)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + data[place + chance.randrange(1, 40) :]
    if kind == 2:
        place = len(data) - chance.randrange(1, 20)
    return data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :]


@pytest.mark.parametrize("error", [RuntimeError, ValueError, ImportError])
def test_without_the_codec_pillow_reads(error, monkeypatch):
    def absent(data):
        raise error("not built with it")

    wanted = {kind: images.decode(data, kind) for kind, data in PLAIN.items()}
    monkeypatch.setattr(decoding, "DECODERS", dict.fromkeys(decoding.DECODERS, absent))
    assert all(same(images.decode(data, kind), wanted[kind]) for kind, data in PLAIN.items())


def test_a_file_on_disk_is_read_as_its_bytes_are(tmp_path):
    for kind, data in (PLAIN | OTHER).items():
        path = tmp_path / "photo"
        path.write_bytes(data)
        np.testing.assert_array_equal(images.read(path), images.decode(data, kind))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("key", [0, 1])
def test_the_transparent_level_of_few_bits_is_found(tmp_path, bits, key):
    rows = b"".join(b"\0" + bytes(range(byte, byte + 8)) for byte in (0, 248))  # all levels of 1, 2 and 4 bits
    header = struct.pack(">IIBBBBB", 64 // bits, 2, bits, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"tRNS", struct.pack(">H", key)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(PNG[:8] + b"".join(chunk(*part) for part in parts))
    packed = np.frombuffer(rows, np.uint8).reshape(2, 9)[:, 1:]
    levels = np.unpackbits(packed).reshape(2, -1, bits) @ (1 << np.arange(bits)[::-1])
    photo = photos.read(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.pixels[..., 0], levels * 255 // ((1 << bits) - 1))
    np.testing.assert_array_equal(photo.alpha, np.where(levels == key, 0, 255))
    np.testing.assert_array_equal(images.read(tmp_path / "a.png")[levels == key], 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_transparent_level_of_16_bits_is_white(tmp_path, channels):
    levels = np.array([[0x1234, 0x3400, 0, 0xFFFF]] * 2, np.uint16)
    data = imagecodecs.png_encode(np.repeat(levels[..., None], channels, axis=-1).squeeze())
    key = chunk(b"tRNS", channels * struct.pack(">H", 0x1234))
    (tmp_path / "a.png").write_bytes(data[:33] + key + data[33:])
    np.testing.assert_array_equal(images.read(tmp_path / "a.png")[0, :, 0], [255, 0x34, 0, 255])
    np.testing.assert_array_equal(photos.read(tmp_path / "a.png").alpha[0], [0, 65535, 65535, 65535])
