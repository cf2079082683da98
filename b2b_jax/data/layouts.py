"""Where the photos lie in the official downloads: one literal table, and how a blurry photo finds its sharp twin."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from b2b_jax.errors import UserError


@dataclass(frozen=True)
class Part:
    """One part of a dataset: `blur` is a glob under the root; `twin` rewrites a blurry path into its sharp one."""

    blur: str
    twin: tuple[tuple[str, str], ...]  # replacements in the path relative to the root, first to last
    scene: int  # which path component names the scene


@dataclass(frozen=True)
class Layout:
    """A published dataset: its folder below `data.root`, its parts `train` and `test`, and where to get it."""

    folder: str
    source: str
    parts: Mapping[str, Part]


LAYOUTS = {
    "gopro": Layout(
        folder="GOPRO_Large",
        source="GOPRO_Large of https://seungjunnah.github.io/Datasets/gopro (CC BY 4.0)",
        parts={
            "train": Part("train/*/blur/*.png", (("/blur/", "/sharp/"),), scene=1),
            "test": Part("test/*/blur/*.png", (("/blur/", "/sharp/"),), scene=1),
        },
    ),
    "reds": Layout(
        folder="REDS",
        source="train_blur, train_sharp, val_blur, val_sharp: https://seungjunnah.github.io/Datasets/reds (CC BY 4.0)",
        parts={
            "train": Part("train/train_blur/*/*.png", (("train_blur/", "train_sharp/"),), scene=2),
            "test": Part("val/val_blur/*/*.png", (("val_blur/", "val_sharp/"),), scene=2),
        },
    ),
    "rsblur": Layout(
        folder="RSBlur",
        source="RSBlur of https://github.com/rimchang/RSBlur (CC BY 4.0), its list files sorted into train/ and test/",
        parts={
            part: Part(
                f"{part}/*/*/real_blur/real_blur.png",
                (("/real_blur/real_blur.png", "/gt/gt_sharp.png"),),
                scene=1,
            )
            for part in ("train", "test")
        },
    ),
    "rb2v": Layout(
        folder="RB2V_Street",
        source="RB2V_Street (research only; https://github.com/VinAIResearch/Blur2Blur), sorted into train/ and test/",
        parts={
            # Seven sharp frames were averaged into each blurry one; the middle one is its truth.
            part: Part(f"{part}/*/blur/*.png", (("/blur/", "/sharp/"), (".png", "_4.png")), scene=1)
            for part in ("train", "test")
        },
    ),
}


@dataclass(frozen=True)
class Photo:
    """A blurry photo, its sharp twin, and the scene both show."""

    blurry: Path
    sharp: Path
    scene: str


def find(name: str, root: Path, part: str, key: str) -> list[Photo]:
    """Lists `part` of the layout `name` under `root`, sorted by path.

    Raises UserError, which names the configuration's `key`, when the folder or its photos are missing.
    """
    layout = LAYOUTS[name]
    pattern = layout.parts[part].blur
    if not root.is_dir():
        raise UserError(
            f"The {name} dataset is missing: no folder {root}. Get {layout.source}, or say where: --config.{key}=DIR"
        )
    blurry = sorted(root.glob(pattern))
    if not blurry:
        raise UserError(
            f"No photos of {name} at {root}/{pattern}; found there: {listing(root)}. Get {layout.source}, "
            f"or give the folder that holds {pattern.split('/')[0]}/: --config.{key}=DIR"
        )
    photos = [_photo(layout.parts[part], root, path) for path in blurry]
    missing = [p.sharp for p in photos if not p.sharp.is_file()]
    if missing:
        raise UserError(f"{len(missing)} of {len(photos)} blurry have no sharp twin: {missing[0]} is missing")
    return photos


def _photo(part: Part, root: Path, path: Path) -> Photo:
    relative = path.relative_to(root).as_posix()
    twin = relative
    for old, new in part.twin:
        twin = twin.replace(old, new)
    return Photo(path, root / twin, relative.split("/")[part.scene])


def listing(folder: Path, most: int = 5) -> str:
    """The first few names in `folder`, for an error's "found there"."""
    names = sorted(p.name for p in folder.iterdir() if not fnmatch.fnmatch(p.name, ".*"))
    return "nothing" if not names else ", ".join(names[:most]) + (", …" if len(names) > most else "")
