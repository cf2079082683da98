"""The photos of a run, by what they mean: the known pairs, the camera's two unpaired piles, validation and test.

Opening them checks that they are there and large enough, before anything is compiled.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grain
import numpy as np
from ml_collections import ConfigDict

from b2b_jax import images
from b2b_jax.data import blur, layouts, pipeline, scenes, split
from b2b_jax.data.layouts import Photo
from b2b_jax.data.sources import ArraySource, Pairs, Photos, Source
from b2b_jax.errors import UserError

PARTS = ("known", "blur", "sharp", "validation", "test")  # families of generated scenes, in the order of their seeds


@dataclass(frozen=True)
class Known:
    """Pairs of the known blur: `train` with the transform that crops them, and `validation` pairs as they are."""

    train: Source
    crop: Callable[[int], grain.transforms.RandomMap]  # from pixels to a transform that gives {"blurry", "sharp"}
    validation: Source
    transfer: Source | None = None  # of generated blur: a pair, another scene ("target") and its truth, see `moved`


@dataclass(frozen=True)
class Unknown:
    """The camera: two unpaired piles, and pairs to score on where there are any.

    A test record of generated blur also holds "known_blurry": the same sharp photo under the known blur.
    """

    blur: Source
    sharp: Source
    validation: Source | None
    test: Source | None
    pairs: Source | None  # the truth of `blur`, which only the upper bound of the evaluation may see
    split: dict | None = None  # which scenes went to which pile, for split.json


def open_known(config: ConfigDict) -> Known:
    """Opens the dataset `data.known`: a layout's name, or "scenes"."""
    if config.data.known == "scenes":
        return _known_scenes(config.data)
    train, test = (_layout_photos(config.data, "known", part) for part in ("train", "test"))
    return Known(Pairs(train), pipeline.Crop, Pairs(test))


def open_unknown(config: ConfigDict) -> Unknown:
    """Opens the camera: your two folders if given, else the dataset `data.unknown`: a layout's name, or "scenes"."""
    data = config.data
    if data.unknown_blur or data.unknown_sharp or not data.unknown:
        return _own_folders(data)
    if data.unknown == "scenes":
        return _unknown_scenes(data)
    train, test = (_layout_photos(data, "unknown", part) for part in ("train", "test"))
    blurry, sharp, record = _split(train, data.split_ratio, config.seed)
    return Unknown(
        blur=Photos([p.blurry for p in blurry]),
        sharp=Photos([p.sharp for p in sharp]),
        validation=Pairs(test),
        test=Pairs(test),
        pairs=Pairs(blurry),
        split=record,
    )


@dataclass(frozen=True)
class Supply:
    """Photos that serve to make the set K, which the discriminator takes as real."""

    source: Source
    crop: Callable[[int], grain.transforms.RandomMap]  # from pixels to a transform
    blurred_afresh: bool  # the transform blurs, and so needs larger photos
    names: Mapping[str, str]  # the crops' keys, and what the translator's step calls them


KNOWN_BLUR = {
    # On the accelerator the extractor moves the blur of a known pair onto a sharp photo of the camera.
    "extractor": lambda config, known, unknown: [
        _known_pairs(config, known, {"sharp": "known_sharp", "blurry": "known_blurry"}),
        Supply(unknown.sharp, pipeline.Crop, False, {"image": "unknown_sharp"}),
    ],
    "paired": lambda config, known, unknown: [_known_pairs(config, known, {"blurry": "known_blur"})],
    "synthetic": lambda config, known, unknown: [
        Supply(unknown.sharp, lambda size: _blurred_crop(config, size), True, {"blurry": "known_blur"})
    ],
    "folder": lambda config, known, unknown: [
        Supply(Photos(_folder(config.known_blur, "path", "known_blur")), pipeline.Crop, False, {"image": "known_blur"})
    ],
}


def _known_pairs(config: ConfigDict, known: Known, names: Mapping[str, str]) -> Supply:
    return Supply(known.train, known.crop, config.data.known == "scenes", names)


def _blurred_crop(config: ConfigDict, size: int) -> pipeline.BlurredCrop:
    return pipeline.BlurredCrop(size, config.data.scenes.known_kernel.to_dict())


# ---------------------------------------------------------------------------------------------------- generated scenes


def _scenes(data: ConfigDict, part: str) -> np.ndarray:
    count, seed = data.scenes[part], data.scenes.seed + PARTS.index(part)
    return scenes.cached(
        Path(data.root) / "scenes" / f"{part}-{seed}-{count}x{data.scenes.size}.npy", seed, count, data.scenes.size
    )


def _known_scenes(data: ConfigDict) -> Known:
    kernel, sharp = data.scenes.known_kernel.to_dict(), _scenes(data, "validation")
    return Known(
        train=ArraySource("known", image=_scenes(data, "known")),
        crop=lambda size: pipeline.BlurredCrop(size, kernel),
        validation=ArraySource("validation", blurry=blurred(sharp, kernel, data.scenes.seed), sharp=sharp),
        transfer=moved(sharp, kernel, data.scenes.seed),
    )


def _unknown_scenes(data: ConfigDict) -> Unknown:
    seed, known, unknown = data.scenes.seed, data.scenes.known_kernel.to_dict(), data.scenes.unknown_kernel.to_dict()
    source, validation, test = (_scenes(data, part) for part in ("blur", "validation", "test"))
    blurry = blurred(source, unknown, seed)
    return Unknown(
        blur=ArraySource("unknown_blur", image=blurry),
        sharp=ArraySource("unknown_sharp", image=_scenes(data, "sharp")),
        validation=ArraySource("validation", blurry=blurred(validation, unknown, seed + 1), sharp=validation),
        test=scored("test", test, unknown, known, seed + 2),
        pairs=ArraySource("unknown_blur", blurry=blurry, sharp=source),
    )


def scored(name: str, sharp: np.ndarray, unknown: dict, known: dict, seed: int) -> ArraySource:
    """Test records of uint8 photos (n, h, w, 3): each under an unknown and, for the oracle, under a known kernel."""
    blurs = {"blurry": blurred(sharp, unknown, seed), "known_blurry": blurred(sharp, known, seed)}
    return ArraySource(name, sharp=sharp, **blurs)


def moved(sharp: np.ndarray, kernel: dict, seed: int) -> ArraySource:
    """Scenes under the blur of another: pairs as `blurred` gives them, the next scene ("target") as it is, under the
    pair's blur ("truth"), and under its own ("other")."""
    blurry, target = blurred(sharp, kernel, seed), np.roll(sharp, -1, axis=0)
    truth = blurred(target, kernel, seed)  # the same kernels in the same order
    other = np.roll(blurry, -1, axis=0)
    return ArraySource("moved", sharp=sharp, blurry=blurry, target=target, truth=truth, other=other)


def blurred(photos: np.ndarray, kernel: dict, seed: int) -> np.ndarray:
    """Each uint8 photo (n, h, w, 3) once under a kernel of its own, rounded to 8 bits as a camera does."""
    rng = np.random.default_rng([seed, len(photos)])
    return np.stack([blur.round8(blur.apply(x.astype(np.float32) / 255.0, blur.draw(rng, kernel))) for x in photos])


# ---------------------------------------------------------------------------------------------------------------- files


def _layout_photos(data: ConfigDict, side: str, part: str) -> list[Photo]:
    name, given = data[side], data[f"{side}_path"]
    if name not in layouts.LAYOUTS:
        raise UserError(f"data.{side} is {name!r}; it can be 'scenes' or one of {', '.join(layouts.LAYOUTS)}")
    root = Path(given) if given else Path(data.root) / layouts.LAYOUTS[name].folder
    return layouts.find(name, root, part, f"data.{side}_path")


def _split(photos: list[Photo], ratio: float, seed: int) -> tuple[list[Photo], list[Photo], dict]:
    try:
        chosen = split.by_scene([p.scene for p in photos], ratio, seed)
    except ValueError as error:
        raise UserError(f"data.unknown at {photos[0].blurry.parent}: {error}") from error
    blurry, sharp = ([p for p in photos if (p.scene in chosen) is side] for side in (True, False))
    record = {"ratio": ratio, "seed": seed}
    for name, pile in (("unknown_blur", blurry), ("unknown_sharp", sharp)):
        record[name] = {"photos": len(pile), "scenes": sorted({p.scene for p in pile})}
    return blurry, sharp, record


def _own_folders(data: ConfigDict) -> Unknown:
    piles, problems = [], []
    for key in ("unknown_blur", "unknown_sharp"):
        try:
            piles.append(Photos(_folder(data, key)))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    pairs = Pairs(_test_photos(data)) if data.test_blur or data.test_sharp else None
    return Unknown(*piles, validation=pairs, test=pairs, pairs=None)


def _folder(section: ConfigDict, key: str, name: str = "data") -> list[Path]:
    value = section[key]
    if not value:
        raise UserError(f"No {key} photos: give a folder of them, --config.{name}.{key}=DIR")
    if not Path(value).is_dir():
        raise UserError(f"{name}.{key} is {value}: no such folder")
    paths = images.find(Path(value))
    if not paths:
        raise UserError(f"{name}.{key} is {value}: no photos in it (found: {layouts.listing(Path(value))})")
    return paths


def _test_photos(data: ConfigDict) -> list[Photo]:
    blurry, sharp = (_by_name(data, key) for key in ("test_blur", "test_sharp"))
    missing = sorted(blurry.keys() - sharp.keys())
    if missing:
        raise UserError(f"data.test_sharp ({data.test_sharp}) lacks the twin of {missing[0]} ({len(missing)} missing)")
    return [Photo(path, sharp[name], "") for name, path in blurry.items()]


def _by_name(data: ConfigDict, key: str) -> dict[str, Path]:
    """Photos by their path within the folder, without suffix: twins may be of different formats."""
    found = {}
    for path in _folder(data, key):
        name = path.relative_to(data[key]).with_suffix("").as_posix()
        if name in found:
            raise UserError(f"data.{key} has two photos of one name: {found[name]} and {path}")
        found[name] = path
    return found
