"""The deblur command on small networks and photos."""

import re
from pathlib import Path

import imagecodecs
import jax
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from b2b_jax import deblur, models, templates, weights
from helpers import jit

RNG = np.random.default_rng(0)
H, W = 16, 24
RGB8 = RNG.integers(0, 256, (H, W, 3), np.uint8)
RGB16 = RNG.integers(0, 65536, (H, W, 3), np.uint16)
SMOOTH = np.linspace(0, 255, H * W * 3).reshape(H, W, 3).astype(np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
NAFNET = {"width": 4, "encoders": [1], "middle": 1, "decoders": [1]}
MIMO = {"base_channels": 4, "num_res": 1}


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", jit)
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("xla")))
        yield


def save(path: Path, name: str, hyper: dict, seed: int | None = 0) -> Path:
    """Writes a network of random weights; without a seed the last convolution is zero: the identity."""
    rng = np.random.default_rng(seed)

    def draw(path, like):
        zero = seed is None and path[1].key == "ending"
        return np.zeros(like.shape, np.float32) if zero else rng.normal(0, 0.3, like.shape).astype(np.float32)

    shapes = templates.template(models.create(name, **hyper))
    weights.save(path, name, hyper, jax.tree_util.tree_map_with_path(draw, shapes))
    return path


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Files of an identity, two random networks, and two that are no image-to-image networks."""
    folder = tmp_path_factory.mktemp("networks")
    return {
        "identity": save(folder / "identity.safetensors", "nafnet", NAFNET, seed=None),
        "nafnet": save(folder / "nafnet.safetensors", "nafnet", NAFNET, 1),
        "mimo": save(folder / "mimo.safetensors", "mimo_unet", MIMO, 2),
        "patchgan": save(folder / "patchgan.safetensors", "patchgan", {"ndf": 4}, 3),
        "vgg": save(folder / "vgg.safetensors", "vgg", {"depth": 16, "layers": ["relu1_1"]}, 4),
    }


@pytest.fixture
def call(networks, tmp_path, capsys):
    """Runs the command line, with tmp_path/out as output; returns the exit code, the text and the lines of errors."""

    def run(*inputs, model="identity", options=()):
        chosen = ["--model", str(networks.get(model, model))] if model else []
        code = deblur.main([*map(str, inputs), *chosen, "--output", str(tmp_path / "out"), *map(str, options)])
        printed, errors = capsys.readouterr()
        lines = errors.replace("\r", "\n").splitlines()
        is_bar = re.compile(r"/s\]|s/\w+\]|\x1b").search
        return code, printed, [line for line in lines if line.strip() and not is_bar(line)]

    return run


def listing(folder: Path) -> list[str]:
    """All files below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def write(path: Path, array: np.ndarray, **options) -> Path:
    """Saves a photo by Pillow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Good photos of many kinds and two bad ones."""
    folder = tmp_path_factory.mktemp("photos")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Model] = 6, "Camera"
    (folder / "deep.png").write_bytes(imagecodecs.png_encode(RGB16))
    tifffile.imwrite(folder / "deep_grey.tif", RGB16[..., 0], photometric="minisblack")
    (folder / "deep_grey.png").write_bytes(imagecodecs.png_encode(RGB16[..., 0].copy()))
    Image.fromarray(SMOOTH).convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    palette = Image.fromarray((np.arange(H * W).reshape(H, W) % 3).astype(np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(folder / "palette.png", transparency=1)
    write(folder / "rgba.png", np.concatenate([RGB8, RGB8[..., :1]], -1))
    write(folder / "turned.jpg", np.rot90(SMOOTH), quality=95, exif=exif, icc_profile=SRGB)
    write(folder / "one pixel.png", RGB8[:1, :1])
    write(folder / "sub" / "фото 写真.webp", RGB8, lossless=True)
    frames = [Image.fromarray(frame) for frame in (SMOOTH, RGB8)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    write(folder / "truncated.jpg", RNG.integers(0, 256, (64, 64, 3), np.uint8))
    (folder / "truncated.jpg").write_bytes((folder / "truncated.jpg").read_bytes()[:2000])
    (folder / "text.png").write_text("text")
    (folder / "notes.txt").write_text("no input")
    return folder
