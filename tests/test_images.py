"""Photos good and bad: each is read rightly or refused by name."""

import os
import struct
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from helpers import REFERENCE
from PIL import Image

from b2b_jax import images, levels
from b2b_jax.images import ImageError

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def save(path: Path, array: np.ndarray, mode: str | None = None, **options) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def png_header(w: int, h: int) -> bytes:
    """A grey PNG that ends where its pixels begin."""
    body = b"IHDR" + struct.pack(">IIBBBBB", w, h, 8, 0, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 99) + b"IDAT"


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".ppm", ".PNG"])
def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / "new" / f"фото 写真 é{suffix}"
    images.write(path, RGB)
    np.testing.assert_array_equal(images.read(path), RGB)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_jpeg_comes_near(tmp_path):
    smooth = np.linspace(0, 255, 32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
    images.write(tmp_path / "a.jpg", smooth)
    assert np.abs(images.read(tmp_path / "a.jpg").astype(int) - smooth).max() <= 4


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    images.write(path, RGB)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        images.write(path, RGB // 2)
    np.testing.assert_array_equal(images.read(path), RGB)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name, image", [("a.xyz", RGB), ("a", RGB), ("a.png", RGB[..., 0]), ("a.png", RGB / 255)])
def test_what_cannot_be_written_is_refused(tmp_path, name, image):
    with pytest.raises(ImageError, match=f"^{tmp_path / name}: "):
        images.write(tmp_path / name, image)
    assert not list(tmp_path.iterdir())


ACROSS = RGB.swapaxes(0, 1)
UPRIGHT = (RGB, RGB[:, ::-1], RGB[::-1, ::-1], RGB[::-1], ACROSS, ACROSS[:, ::-1], ACROSS[::-1, ::-1], ACROSS[::-1])


@pytest.mark.parametrize("orientation, wanted", list(enumerate(UPRIGHT, start=1)))
def test_exif_orientation(tmp_path, orientation, wanted):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", RGB, exif=exif)
    np.testing.assert_array_equal(images.read(path), wanted)
    assert images.size(path) == wanted.shape[:2]


def test_grey_and_palette(tmp_path):
    grey = images.read(save(tmp_path / "grey.png", RGB[..., 0]))
    np.testing.assert_array_equal(grey, np.repeat(RGB[..., :1], 3, -1))
    np.testing.assert_array_equal(images.read(save(tmp_path / "bits.png", RGB[..., 0], "1"))[..., 0] % 255, 0)
    few = RGB // 128 * 255
    np.testing.assert_array_equal(images.read(save(tmp_path / "palette.png", few, "P")), few)


@pytest.mark.parametrize(
    "name, dtype", [("a.png", np.uint16), ("a.tif", np.uint16), ("a.tif", ">u2"), ("a.tif", np.int32)]
)
def test_16_bits_are_scaled_not_clipped(tmp_path, name, dtype):
    values = np.array([[0, 128, 129, 257], [300, 32768, 65406, 65535]])
    got = images.read(save(tmp_path / name, values.astype(dtype)))
    np.testing.assert_array_equal(got, np.repeat(np.rint(values / 257)[..., None], 3, -1))


def test_float_photos(tmp_path):
    values = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(images.read(save(tmp_path / "a.tif", values))[..., 0], np.rint(values * 255))


@pytest.mark.parametrize(
    "values", [np.int32([[-1, 5]]), np.int32([[0, 70000]]), np.float32([[0, 255]]), np.float32([[0, np.nan]])]
)
def test_unknown_ranges_are_refused(tmp_path, values):
    path = save(tmp_path / "a.tif", values)
    with pytest.raises(ImageError, match=f"^{path}: grey values from"):
        images.read(path)


def test_cmyk(tmp_path):
    flat = np.broadcast_to(np.array([200, 40, 90], np.uint8), (16, 16, 3))
    for name in ("a.tif", "a.jpg"):
        got = images.read(save(tmp_path / name, flat, "CMYK"))
        assert np.abs(got.astype(int) - flat).max() <= 4


def test_alpha_is_composited_over_white(tmp_path):
    alpha = np.tile(np.array([0, 128, 255], np.uint8), (6, 3))[..., None]
    wanted = RGB * (alpha / 255) + 255 * (1 - alpha / 255)
    got = images.read(save(tmp_path / "a.png", np.concatenate([RGB, alpha], -1)))
    assert np.abs(got - wanted).max() <= 1
    see_through = save(tmp_path / "key.png", np.zeros((2, 2, 3), np.uint8), transparency=(0, 0, 0))
    np.testing.assert_array_equal(images.read(see_through), 255)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_an_animation_the_first_frame(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("#ff0000", "#0000ff")]
    options = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(images.read(tmp_path / name), np.broadcast_to([255, 0, 0], (8, 8, 3)))


def test_one_pixel(tmp_path):
    np.testing.assert_array_equal(images.read(save(tmp_path / "a.png", RGB[:1, :1])), RGB[:1, :1])


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "empty"),
        (b"just text", "not an image"),
        (png_header(20, 20), "truncated or broken"),
        (png_header(40_000, 40_000), "more than the limit"),
        (png_header(15_000, 15_000), "truncated or broken"),  # above Pillow's own limit, below ours
        (b"\x89PNG\r\n\x1a\n" + b"\xff" * 64, "not an image"),
    ],
)
def test_broken_files_are_named(tmp_path, content, says):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        images.read(path)
    assert str(caught.value).startswith(f"{path}: ") and says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.gif", "a.bmp"])
def test_truncated_photos_are_refused(tmp_path, name):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path / name, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ImageError, match=f"^{path}: "):
        images.read(path)


def test_what_is_no_file_is_named(tmp_path):
    (tmp_path / "link.png").symlink_to("gone.png")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    says = {"link.png": "broken link", "folder.png": "a folder", "pipe.png": "pipe", "none.png": "no such file"}
    for name, words in says.items():
        with pytest.raises(ImageError, match=f"^{tmp_path / name}: .*{words}"):
            images.read(tmp_path / name)


def test_find_in_natural_order(tmp_path):
    names = ["2.png", "10.JPG", "b/frame9.tif", "b/frame10.tif", "a1/x.png", "a10/x.png", "a2/x.png"]
    for name in [*names, ".hidden.png", ".git/x.png", "notes.txt", "b/._frame9.tif"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "z.png").symlink_to("gone.png")
    wanted = ["2.png", "10.JPG", "a1/x.png", "a2/x.png", "a10/x.png", "b/frame9.tif", "b/frame10.tif", "z.png"]
    assert [str(path.relative_to(tmp_path)) for path in images.find(tmp_path)] == wanted


def test_find_wants_a_folder(tmp_path):
    with pytest.raises(ImageError, match="none: not a folder"):
        images.find(tmp_path / "none")
    assert images.find(tmp_path) == []


@pytest.mark.parametrize("i", range(3))
def test_resizing_of_the_released_pipeline(i):
    data = np.load(REFERENCE / "data" / "resize.npz")
    np.testing.assert_array_equal(levels.resize_shorter(data[f"in{i}"], int(data[f"size{i}"])), data[f"out{i}"])


def test_ranges():
    every = np.arange(256, dtype=np.uint8)
    assert levels.to_float(every).dtype == np.float32 and levels.to_float(every)[-1] == 1
    np.testing.assert_array_equal(levels.to_uint8(levels.to_float(every)), every)
    np.testing.assert_array_equal(levels.to_uint8([-1, 0.5 / 255, 1.5 / 255, 2.5 / 255, 2]), [0, 0, 2, 2, 255])
    np.testing.assert_array_equal(levels.to_uint8(jnp.array([0.0, 1.0])), [0, 255])
    with pytest.raises(ValueError, match="1 of 2 values"):
        levels.to_uint8([0.5, np.nan])


def test_luma():
    x = np.array([[0, 0, 0], [1, 1, 1], [1, 0, 0]], np.float32)
    wanted = np.array([16, 235, 81.481]) / 255
    for array in (x, jnp.asarray(x)):
        got = levels.luma(array)
        assert isinstance(got, type(array)) and got.dtype == np.float32
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_the_size_of_a_photo_is_read_from_its_header_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    images.write(path, np.zeros((5, 7, 3), np.uint8))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert images.size(path) == (5, 7)


def test_bytes_are_read_as_their_file_is(tmp_path):
    path = tmp_path / "a.jpg"
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)).save(path, exif=turned)
    assert images.read(path).shape == (7, 5, 3)
    np.testing.assert_array_equal(images.decode(path.read_bytes(), "a"), images.read(path))
    with pytest.raises(images.ImageError, match="shard/b: not an image"):
        images.decode(b"text", "shard/b")


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_signed_numbers_are_refused(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", np.arange(12, dtype=dtype).reshape(3, 4))
    with pytest.raises(ImageError, match=f"a.tif: signed numbers of {8 * np.dtype(dtype).itemsize} bits"):
        images.read(tmp_path / "a.tif")


def test_a_volume_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 32, 32), np.uint8), volumetric=True, tile=(16, 16, 16))
    with pytest.raises(ImageError, match="a volume of 16 slices"):
        images.read(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", [1, 4])  # bits of the tag NewSubfileType: a reduced copy, a mask
def test_what_belongs_to_another_page_is_passed_over(tmp_path, kind):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((4, 4), np.uint8), metadata=None, subfiletype=1)
        file.write(RGB, photometric="rgb", metadata=None)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[data.find(struct.pack("<HHI", 254, 4, 1)) + 8] = kind
    (tmp_path / "a.tif").write_bytes(data)
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif"), RGB)


@pytest.mark.parametrize("entry", [struct.pack("<HHI4s", 274, 2, 2, b"6"), struct.pack("<HHII", 274, 3, 1, 9)])
def test_an_orientation_that_is_none_is_passed_over(tmp_path, entry):
    data = b"Exif\0\0II*\0\x08\0\0\0\1\0" + entry + bytes(4)
    assert images.read(save(tmp_path / "a.jpg", RGB, exif=data)).shape == RGB.shape
    assert images.size(tmp_path / "a.jpg") == RGB.shape[:2]
