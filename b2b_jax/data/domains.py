"""The photos of a run, by what they mean: the known pairs, the camera's two unpaired piles, validation and test.

Opening them checks that they are there and large enough, before anything is compiled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from b2b_jax import levels
from b2b_jax.data import blur, finding, folder, moving, pipeline, prepared, scenes, split
from b2b_jax.data.layouts import LAYOUTS
from b2b_jax.data.photo import Photo
from b2b_jax.data.processing import Processing
from b2b_jax.data.quickly import takes_long, together
from b2b_jax.data.skipping import BadPhotos, Skipping, apart
from b2b_jax.data.sources import Also, ArraySource, Pairs, Photos, Source, check_sizes
from b2b_jax.data.synthetic import FRAME_KINDS, Degraded, averages
from b2b_jax.errors import UserError

VALIDATION_SHARE = 0.95  # left for training where validation pairs must be held out
PARTS = ("known", "blur", "sharp", "validation", "test")  # families of generated scenes, in the order of their seeds


@dataclass(frozen=True)
class Known:
    """Pairs of the known blur: `train` with the transform that crops them, and `validation` pairs as they are."""

    train: Source
    crop: pipeline.Cropper  # gives {"blurry", "sharp"}
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
    piles: Mapping[str, Sequence[Photo]] | None = None  # folders of one's own, for data_report.json


def open_known(config: ConfigDict) -> Known:
    """Opens the dataset `data.known`: a layout's name, "scenes", or "degraded"."""
    data = config.data
    if data.known == "scenes":
        return _known_scenes(data)
    if data.known == "degraded":
        return _known_degraded(config)
    train = _layout_photos(data, "known", "train")
    if data.known == "original":  # which has no other pairs
        train, held_out, _ = split.divide(train, VALIDATION_SHARE, config.seed)
    else:
        held_out = _layout_photos(data, "known", _validation_part(data.known))
    return Known(training(data, Pairs(train)), pipeline.Crop, _scored_pairs(held_out))


def own(data: ConfigDict) -> bool:
    """Whether the camera's photos are the user's own folders."""
    return bool(data.unknown_blur or data.unknown_sharp or data.unknown in ("", "folder"))


def takes_test_photos(data: ConfigDict) -> bool:
    """Whether the test pairs come from `data.test_*`: own folders and the published code's bring none themselves."""
    return own(data) or data.unknown == "original"


def open_unknown(config: ConfigDict) -> Unknown:
    """Opens the camera: your two folders if given, else the dataset `data.unknown`: a layout's name, or "scenes"."""
    data = config.data
    if own(data):
        return _own_folders(config)
    given = [f"data.{key}" for key in folder.SCORED if data[key]]
    if given and not takes_test_photos(data):
        wanted = "can only be used with your own photos (data.unknown_blur, data.unknown_sharp)"
        raise UserError(f"{given[0]} {wanted}; data.unknown is {data.unknown!r}, which brings its own test photos")
    if data.unknown == "scenes":
        return _unknown_scenes(data)
    if data.unknown == "original":
        return _original(config)
    train, test = (_layout_photos(data, "unknown", part) for part in ("train", "test"))
    blurry, sharp, _ = split.divide(train, data.split_ratio, config.seed)
    blurry, sharp = (split.thinned(pile, data.share, config.seed) for pile in (blurry, sharp))
    part = _validation_part(data.unknown)
    test_pairs = _scored_pairs(test)
    return Unknown(
        blur=training(data, Photos([p.blurry for p in blurry])),
        sharp=training(data, Photos([p.sharp for p in sharp])),
        validation=test_pairs if part == "test" else _scored_pairs(_layout_photos(data, "unknown", part)),
        test=test_pairs,
        pairs=training(data, Pairs(blurry)),
        split=split.record(blurry, sharp, data.split_ratio, config.seed),
    )


def keep_bad_photos(opened: Known | Unknown, path: Path) -> None:
    """From now on the file at `path` names the bad photos that are skipped in training."""
    for source in vars(opened).values():
        if isinstance(source, Skipping):
            source.bad.keep_in(path)


# ---------------------------------------------------------------------------------------------------- generated scenes


def _scenes(data: ConfigDict, part: str, scale: int = 1) -> np.ndarray:
    takes_long()
    count, seed, size = data.scenes[part], data.scenes.seed + PARTS.index(part), scale * data.scenes.size
    return scenes.cached(Path(data.root) / "scenes" / f"{part}-{seed}-{count}x{size}.npy", seed, count, size)


def _known_scenes(data: ConfigDict) -> Known:
    kernel, sharp = data.scenes.known_kernel.to_dict(), _scenes(data, "validation")
    return Known(
        train=ArraySource("known", image=_scenes(data, "known")),
        crop=lambda size: pipeline.BlurredCrop(size, kernel),
        validation=ArraySource("validation", blurry=blurred(sharp, kernel, data.scenes.seed), sharp=sharp),
        transfer=moved(sharp, kernel, data.scenes.seed),
    )


def _unknown_scenes(data: ConfigDict) -> Unknown:
    seed = data.scenes.seed
    source, validation, test = (_scenes(data, part) for part in ("blur", "validation", "test"))
    source, sharp = (pile[: round(data.share * len(pile))] for pile in (source, _sharp_scenes(data)))
    blurry = photographed(source, data.scenes, seed)
    return Unknown(
        blur=ArraySource("unknown_blur", image=blurry),
        sharp=ArraySource("unknown_sharp", image=sharp),
        validation=ArraySource("validation", blurry=photographed(validation, data.scenes, seed + 1), sharp=validation),
        test=scored("test", test, data.scenes, seed + 2),
        pairs=ArraySource("unknown_blur", blurry=blurry, sharp=source),
    )


def _sharp_scenes(data: ConfigDict) -> np.ndarray:
    """The sharp pile, reduced from larger scenes where it is to show other things than the blurry one."""
    scale = data.scenes.sharp_scale
    photos = _scenes(data, "sharp", scale)
    if scale == 1:
        return photos
    blocks = photos.reshape(len(photos), data.scenes.size, scale, data.scenes.size, scale, 3)
    return np.stack([np.rint(block.mean((1, 3))).astype(np.uint8) for block in blocks])


def scored(name: str, sharp: np.ndarray, settings: ConfigDict, seed: int) -> ArraySource:
    """Test records of uint8 photos (n, h, w, 3): each as the camera takes it and, for the oracle, under a known kernel.

    `settings` is the section `data.scenes`.
    """
    known_blurry = blurred(sharp, settings.known_kernel.to_dict(), seed)
    return ArraySource(name, sharp=sharp, blurry=photographed(sharp, settings, seed), known_blurry=known_blurry)


def photographed(photos: np.ndarray, settings: ConfigDict, seed: int) -> np.ndarray:
    """Each uint8 photo (n, h, w, 3) as the unknown camera of the section `data.scenes` takes it: uint8."""
    kernel, processing = settings.unknown_kernel.to_dict(), Processing(**settings.unknown_processing.to_dict())
    if kernel["kind"] in blur.KERNELS and processing.neutral:
        return blurred(photos, kernel, seed)  # `develop` draws noise even of 0, after which every kernel is another
    rng = np.random.default_rng([seed, len(photos)])
    light = (processing.light(levels.to_float(x)) for x in photos)
    return np.stack([processing.develop(rng, moving.expose(rng, x, kernel)) for x in light])


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


class Place(NamedTuple):
    """Where the photos of a layout lie, as the configuration says."""

    name: str
    variant: str
    root: Path  # of the download
    output: Path  # of prepared datasets
    is_prepared: bool  # and that is meant: a download that is named is read itself, unless it was to be prepared


def _place(data: ConfigDict, side: str) -> Place:
    """Where the photos of `data.known` or `data.unknown` lie; UserError when it is no layout."""
    name, given = data[side], data[f"{side}_path"]
    if name not in LAYOUTS:
        others = ("scenes", "degraded") if side == "known" else ("scenes",)
        raise UserError(f"data.{side} is {name!r}; it can be {', '.join((*others, *LAYOUTS))}")
    variant = data.name if name == "curated" else data[f"{side}_variant"]
    root, output = Path(given) if given else Path(data.root) / LAYOUTS[name].folder, Path(data.root) / data.prepared
    meant = bool(data.prepared) and (data.prepare or not given)
    return Place(name, variant, root, output, meant and prepared.exists(name, output, variant))


def _layout_photos(data: ConfigDict, side: str, part: str) -> list[Photo]:
    """Photos of a part of `data.known` or `data.unknown`: the prepared ones if there are any, else the download's."""
    given, option = data[f"{side}_path"], f"--config.data.{side}_path"
    name, variant, root, output, is_prepared = _place(data, side)
    if part not in LAYOUTS[name].parts:
        raise UserError(f"data.{side} is {name!r}, which has no {part} photos")
    if data.prepare and (given or not prepared.exists(name, output, variant)):
        parts = finding.find_all(name, root, option, variant)
        takes_long()
        prepared.prepare(name, root, parts, output, variant, wait=True)  # for another process of the same host
        is_prepared = bool(data.prepared)
    if is_prepared:
        return prepared.find(name, output, part, variant)
    photos, published = finding.find(name, root, part, option, variant), LAYOUTS[name].parts[part].photos
    if published and len(photos) != published:
        print(f"{name}, {part}: {len(photos):,} photos are there, {published:,} were published")
    if others := finding.other_kinds(name, part, photos):
        print(f"{name}, {part}: photos are {others}, not as published")
    return photos


def scored_digest(data: ConfigDict) -> str:
    """What changes with the photos to score on, your own or those that `data.unknown` brings; "" for generated ones.

    UserError: there are no such photos; ImageError: one cannot be opened.
    """
    if takes_test_photos(data):
        return folder.scored_digest(data)
    if data.unknown == "scenes":
        return ""
    name, variant, root, output, is_prepared = _place(data, "unknown")
    if is_prepared:
        return f"prepared {prepared.digest(name, output, variant)}"
    photos = finding.find(name, root, "test", "--config.data.unknown_path", variant)
    # The files of a published dataset are many, and nobody edits them: their sizes tell of another download.
    return f"files {folder.digest(photos, root, contents=not LAYOUTS[name].parts['test'].photos)}"


def _validation_part(name: str) -> str:
    return "validation" if name in LAYOUTS and "validation" in LAYOUTS[name].parts else "test"


def training(data: ConfigDict, source: Source, bad: BadPhotos | None = None) -> Source:
    """Photos to train on, under the policy for bad ones, `data.bad_photos`."""
    return Skipping(source, bad or BadPhotos()) if data.bad_photos == "skip" else source


def _scored_pairs(photos: list[Photo]) -> Pairs:
    """Pairs to score on, none of which may be bad."""
    pairs = Pairs(photos)
    check_sizes(pairs, 1)
    return pairs


def _original(config: ConfigDict) -> Unknown:
    """The piles trainA and trainB of the published code."""
    data = config.data
    piles = [_layout_photos(data, "unknown", part) for part in ("unknown_blur", "unknown_sharp")]
    pairs = _own_test_pairs(data)
    piles = folder.kept_apart(data, dict(zip(("unknown_blur", "unknown_sharp"), piles, strict=True)))
    blurry, sharp = split.apart(*piles.values(), data.split_ratio, config.seed)
    blurry, sharp = (split.thinned(pile, data.share, config.seed) for pile in (blurry, sharp))
    return Unknown(
        blur=training(data, Photos([p.blurry for p in blurry])),
        sharp=training(data, Photos([p.blurry for p in sharp])),
        validation=pairs,
        test=pairs,
        pairs=None,
        split=split.record(blurry, sharp, data.split_ratio, config.seed),
    )


def _known_degraded(config: ConfigDict) -> Known:
    """Pairs made of sharp photos as `data.degradation` says: those of `data.known_path`, or the camera's own."""
    return _degraded_folder(config) if config.data.known_path else _degraded_camera(config)


def _degraded_camera(config: ConfigDict) -> Known:
    """Pairs made of the camera's `unknown_sharp`, the last of which are held out."""
    kind = config.data.degradation.kind
    if kind in FRAME_KINDS:
        raise UserError(f"data.degradation.kind={kind} averages the frames of data.known_path, which is not given")
    pile = open_unknown(config).sharp
    train, held_out = apart(pile, max(1, round((1 - VALIDATION_SHARE) * len(pile))))
    return Known(train, partial(pipeline.DegradedCrop, kind=kind), Degraded(held_out, kind, config.seed))


def _degraded_folder(config: ConfigDict) -> Known:
    """Pairs made of the photos and videos in `data.known_path`, some scenes of which are held out."""
    data, settings, bad = config.data, config.data.degradation, BadPhotos()
    piles = split.divide(folder.pile(data, "known_path", bad), VALIDATION_SHARE, config.seed)[:2]
    if settings.kind in FRAME_KINDS:
        windows = [split.windows(pile, settings.frames) for pile in piles]
        train, held_out = (averages(w, settings.kind, settings.response, config.seed) for w in windows)
        if not len(train) or not len(held_out):
            raise UserError(f"data.known_path is {data.known_path}: fewer than two scenes of {settings.frames} frames")
        return Known(training(data, train, bad), pipeline.Crop, held_out)
    train, held_out = (Photos([p.blurry for p in pile]) for pile in piles)
    crop = partial(pipeline.DegradedCrop, kind=settings.kind)
    return Known(training(data, train, bad), crop, Degraded(held_out, settings.kind, config.seed))


def _own_folders(config: ConfigDict) -> Unknown:
    """Two folders of photos and videos, and test pairs if there are any."""
    data, bad = config.data, BadPhotos()
    pairs, piles = together([lambda: _own_test_pairs(data), lambda: folder.piles(data, bad)])
    piles = folder.kept_apart(data, piles)
    piles = {name: split.thinned(pile, data.share, config.seed) for name, pile in piles.items()}
    sources = [training(data, Photos([photo.blurry for photo in pile]), bad) for pile in piles.values()]
    return Unknown(*sources, validation=pairs, test=pairs, pairs=None, piles=piles)


def _own_test_pairs(data: ConfigDict) -> Source | None:
    photos = folder.test_pairs(data)
    if not photos:
        return None
    pairs, known = _scored_pairs(photos), folder.known_twins(data, photos)
    return Also(pairs, "known_blurry", known) if known else pairs
