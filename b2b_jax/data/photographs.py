"""Two unpaired piles and a test set of one generated camera, made of sharp photographs from any folders.

    OUTPUT/unknown_blur/    shots of photographs that only this pile has, each blurred by the camera once
    OUTPUT/unknown_sharp/   shots of other photographs, sharp
    OUTPUT/test/            blurry, sharp and known_blurry crops, under equal names, of yet other photographs, and
                            kernels.npz: the kernel of every blurry crop
    OUTPUT/kernels.npy      further random kernels of the camera (n, k, k), for rows that may know the truth; neither is
                            written for a camera that moves, whose blur varies over a shot
    OUTPUT/manifest.json    every photograph: file name, SHA-256, its part and the name of its shots, or why it is left
                            out; and all settings

No photograph is in two parts. All that is random comes from the seed: equal files give equal piles.
"""

import hashlib
import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from b2b_jax import arrays, images, levels
from b2b_jax.data import blur, moving
from b2b_jax.data.processing import Processing
from b2b_jax.data.sharpness import laplacian_variance
from b2b_jax.errors import UserError
from b2b_jax.files import draft, write_json

PARTS = ("unknown_blur", "unknown_sharp", "test")
SHARES = (0.33, 0.33, 0.34)  # of the photographs that go to each part
FEWEST = 6  # photographs, for two in each part
SUFFIXES = (".jpg", ".jpeg")  # of photographs: what comes as PNG or WebP among wallpapers is drawn
SAME = 8.0  # grey levels: mean difference of two 16 x 16 reductions, below which they show the same
PLAIN = 5e-5  # variance of the Laplacian, below which a shot shows too little for its blur to be seen, and
PLAIN_TEST = 5e-4  # a test crop has nothing to restore
KERNELS = 2048
MARGIN = 10  # pixels on each side that a camera's kernel or motion takes from a shot
# The known blur: paths of a hand-held camera, averaged as stored values, as GoPro's linear response has it.
KNOWN = {"kind": "trajectory", "length": (6.0, 14.0)}


@dataclass(frozen=True)
class Camera:
    """What a camera does to a sharp photo: one of its blurs, at random, then its processing."""

    kernels: tuple[dict, ...] = ()  # for `blur.draw`; none if it moves
    processing: Processing = field(default_factory=Processing)
    motion: dict | None = None  # for `moving.expose`

    def kernel(self, rng: np.random.Generator) -> np.ndarray | None:
        """A random kernel, float32 (k, k); None if the camera moves."""
        return None if self.motion else blur.draw(rng, self.kernels[rng.integers(len(self.kernels))])

    def take(self, rng: np.random.Generator, sharp: np.ndarray, kernel: np.ndarray | None) -> np.ndarray:
        """The photo that the camera makes of float `sharp` (h, w, 3): uint8 (h - k + 1, w - k + 1, 3).

        Without a kernel it moves, and h - 2 MARGIN by w - 2 MARGIN pixels are left.
        """
        light = self.processing.light(sharp)
        if kernel is None:
            blurry = moving.expose(rng, light, self.motion)[MARGIN:-MARGIN, MARGIN:-MARGIN]
        else:
            blurry = blur.blur_valid(light, kernel)
        return self.processing.develop(rng, blurry)


CAMERAS = {
    # A merged burst: two or three displaced copies, in any direction.
    "burst": Camera(
        tuple({"kind": "copies", "copies": n, "extent": (4.0, 9.0), "angle": (0.0, 180.0)} for n in (2, 3))
    ),
    # A phone: hand-held, over-sharpened, some noise.
    "phone": Camera((KNOWN,), Processing(amount=(1.5, 3.0), noise=3 / 255)),
    # The same at night: longer paths, much noise, small files.
    "night": Camera(({"kind": "trajectory", "length": (8.0, 18.0)},), Processing(noise=8 / 255, quality=75)),
    # The phone's paths, but blur of light, which is then stored as sRGB.
    "tone": Camera((KNOWN,), Processing(response="srgb")),
    # It rolls about a point in or near the shot, as if that were cut from a frame of twice its size.
    "roll": Camera(motion={"kind": "rotation", "angle": (1.5, 2.5), "about": (-0.5, 1.5)}),
}


class Photograph(NamedTuple):
    """A photograph that is used."""

    path: Path
    name: str  # of its shots: no two photographs have the same
    pixels: np.ndarray  # uint8 (h, w, 3), scaled


@dataclass(frozen=True)
class Settings:
    """How photographs are scaled and cut; in pixels unless said otherwise."""

    camera: str = "burst"
    seed: int = 0
    skip: tuple[str, ...] = ()  # patterns of file names that are left out: drawn pictures in a photograph's format
    side: int = 1600  # of the longer side; smaller photographs are left out: enlarging makes nothing sharp
    soften: float = 0.7  # standard deviation of a Gaussian on all of them: about the sharpness of GoPro's frames
    shot: int = 300  # side of a shot in the two piles, and
    crop: int = 256  # of a test crop
    crops: int = 8  # at most, of a test photograph, spread over it
    kernels: tuple[dict, ...] = field(default=(KNOWN,), repr=False)  # the known blur of test/known_blurry


def make(sources: Sequence[Path], output: Path, settings: Settings) -> dict:
    """Writes the piles, the test set and the manifest, which it returns.

    UserError: too few photographs are found, or nothing could be cut out of those of a part.
    """
    used, manifest = gather(sources, settings)
    if len(used) < FEWEST:
        raise UserError(f"{len(used)} sharp photographs of {settings.side} pixels found, at least {FEWEST} are needed")
    parts, camera = divide(used, settings.seed), CAMERAS[settings.camera]
    for number, (part, photographs) in enumerate(parts.items()):
        write = write_test if part == "test" else write_pile
        for photograph in photographs:
            manifest[str(photograph.path)]["part"] = part
        write(output / part, photographs, settings, np.random.default_rng([settings.seed, number]))
    if empty := [part for part in parts if not any((output / part).rglob("*.png"))]:
        wanted = f"squares of {settings.shot} pixels that show something"
        raise UserError(
            f"{output}: {', '.join(empty)} got no shots ({wanted}); choose a larger --side, or give more photographs"
        )
    if not camera.motion:
        rng = np.random.default_rng([settings.seed, len(parts)])
        arrays.write(output / "kernels.npy", np.stack([camera.kernel(rng) for _ in range(KERNELS)]))
    record = {"settings": asdict(settings), "camera": asdict(camera), "photographs": list(manifest.values())}
    write_json(output / "manifest.json", record)
    return record


# ------------------------------------------------------------------------------------------------------------ selection


def gather(sources: Sequence[Path], settings: Settings) -> tuple[list[Photograph], dict[str, dict]]:
    """The photographs in the folders, and an entry of the manifest for every picture, by its path.

    Drawn, small and doubled pictures are left out, and said to be so.
    """
    used, manifest, seen = [], {}, []
    for path in [path for source in sources for path in images.find(source)]:
        entry = {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        skipped = any(fnmatch(path.name, pattern) for pattern in settings.skip)
        pixels, reason = (None, "asked for") if skipped else judge(path, settings.side, seen)
        if reason:
            manifest[str(path)] = entry | {"left_out": reason}
        else:
            name = distinct(path.stem, {photograph.name for photograph in used})
            manifest[str(path)] = entry | {"shots": name}
            used.append(Photograph(path, name, softened(pixels, settings.soften)))
    return used, manifest


def distinct(stem: str, taken: Collection[str]) -> str:
    """The stem, with a number behind it if it is taken: packages call many files 2560x1600.jpg."""
    numbered = (f"{stem}_{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([stem], numbered) if name not in taken)


def judge(path: Path, side: int, seen: list[np.ndarray]) -> tuple[np.ndarray | None, str]:
    """The picture, scaled, or why it is left out; its reduction joins `seen`."""
    if path.suffix.lower() not in SUFFIXES:
        return None, "not in a photograph's format"
    try:
        pixels = images.read(path)
    except images.ImageError as error:
        return None, str(error)
    if max(pixels.shape[:2]) < side:
        return None, f"its longer side has fewer than {side} pixels"
    small = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BOX), np.float32)
    if any(np.abs(small - other).mean() < SAME for other in seen):
        return None, "shows the same as another"
    seen.append(small)
    return scaled(pixels, side), ""


def scaled(pixels: np.ndarray, side: int) -> np.ndarray:
    """The photo with its longer side at `side` pixels."""
    h, w = pixels.shape[:2]
    sides = tuple(round(length * side / max(h, w)) for length in (w, h))
    return np.asarray(Image.fromarray(pixels).resize(sides, Image.Resampling.LANCZOS))


def softened(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """The uint8 photo under a Gaussian of `sigma` pixels; 0 for none."""
    if not sigma:
        return pixels
    return blur.round8(blur.apply(levels.to_float(pixels), blur.gaussian_kernel(sigma, 9)))


def divide(photographs: Sequence[Photograph], seed: int) -> dict[str, list[Photograph]]:
    """The photographs by part, shuffled by the seed."""
    order = np.random.default_rng(seed).permutation(len(photographs))
    first, second = (round(len(order) * share) for share in np.cumsum(SHARES)[:2])
    chosen = order[:first], order[first:second], order[second:]
    return {part: [photographs[i] for i in some] for part, some in zip(PARTS, chosen, strict=True)}


# -------------------------------------------------------------------------------------------------------------- writing


def write_pile(folder: Path, photographs: Sequence[Photograph], settings: Settings, rng: np.random.Generator) -> None:
    """Shots of photographs, each taken by the camera; or as they are, for the sharp pile."""
    camera, blurry = CAMERAS[settings.camera], folder.name == "unknown_blur"
    for _, name, pixels in photographs:
        for i, shot in enumerate(spread(pixels, settings.shot, PLAIN)):
            taken = camera.take(rng, levels.to_float(shot), camera.kernel(rng)) if blurry else shot
            images.write(folder / f"{name}-{i:02d}.png", taken)


def write_test(folder: Path, photographs: Sequence[Photograph], settings: Settings, rng: np.random.Generator) -> None:
    """Crops of photographs, each as it is, as the camera takes it, and under the known blur."""
    camera, known, kernels = CAMERAS[settings.camera], Camera(settings.kernels), {}
    for _, photograph, pixels in photographs:
        for i, wide in enumerate(spread(pixels, settings.crop + 2 * MARGIN, PLAIN_TEST, settings.crops)):
            name, sharp = f"{photograph}-{i}", levels.to_float(wide)
            kernels[name] = camera.kernel(rng)
            versions = {
                "sharp": wide[MARGIN:-MARGIN, MARGIN:-MARGIN],
                "blurry": camera.take(rng, sharp, kernels[name]),
                "known_blurry": known.take(rng, sharp, known.kernel(rng)),
            }
            for kind, version in versions.items():
                images.write(folder / kind / f"{name}.png", version)
    if not camera.motion:
        with draft(folder / "kernels.npz") as part, part.open("wb") as file:
            np.savez(file, **kernels)


def squares(pixels: np.ndarray, side: int) -> Iterator[np.ndarray]:
    """All whole squares of `side` pixels side by side, from the top left."""
    rows, columns = (length // side for length in pixels.shape[:2])
    for r in range(rows):
        for c in range(columns):
            yield pixels[r * side : (r + 1) * side, c * side : (c + 1) * side]


def spread(pixels: np.ndarray, side: int, plain: float, count: int = 0) -> list[np.ndarray]:
    """The squares whose Laplacian varies by more than `plain`; of more than `count` (0 = all) that many, spread out."""
    busy = [square for square in squares(pixels, side) if laplacian_variance(square) > plain]
    if not count or len(busy) <= count:
        return busy
    return [busy[i] for i in np.linspace(0, len(busy) - 1, count).astype(int)]
