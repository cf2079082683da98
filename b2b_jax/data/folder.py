"""Folders of one's own: photos and videos mixed, nested or flat. A video, and a sub-folder of photos, is a scene."""

import filecmp
import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict
from tqdm import tqdm

from b2b_jax import extras, files, folders, images
from b2b_jax.data import finding, prepared
from b2b_jax.data.photo import File, Photo
from b2b_jax.data.quickly import takes_long, together
from b2b_jax.data.skipping import BadPhotos
from b2b_jax.errors import UserError, shown

START = 1 << 12  # bytes of a file, by which most are told apart
SCORED = ("test_blur", "test_sharp", "test_known")  # keys of `data` whose photos nothing is trained with


def piles(data: ConfigDict, bad: BadPhotos) -> dict[str, list[Photo]]:
    """The photos and the videos' frames of `data.unknown_blur` and `data.unknown_sharp`, or what was prepared of them.

    Videos that cannot be read are noted in `bad`. Raises UserError, with a line for either folder that cannot be used.
    """
    keys = ("unknown_blur", "unknown_sharp")
    found = together([partial(pile, data, key, bad) for key in keys])
    return dict(zip(keys, found, strict=True))


def pile(data: ConfigDict, key: str, bad: BadPhotos) -> list[Photo]:
    """As `piles`, of one key of `data`."""
    path = _given(data, key)
    if prepared.exists("folder", path):
        return prepared.find("folder", path, "photos")
    found, faults = photos(path, Path(data.root) / "frames", **data.videos)
    if faults and data.bad_photos == "stop":
        raise UserError(f"{faults[0]}; remove it, or set --config.data.bad_photos=skip")
    for fault in faults:
        bad.add(fault)
    return found or _refuse_empty(path, key)


def photos(folder: Path, cache: Path, every: int, limit: int, thin: float) -> tuple[list[Photo], list[str]]:
    """The photos of a folder and the frames of its videos, without twins.

    Args:
        folder: to look in.
        cache: folder for the frames of videos.
        every, limit, thin: as for `frames.extract`.

    Returns:
        The photos, and a line for every video that broke off or cannot be read, and every folder.

    Raises:
        UserError: there are videos, and the package that reads them is missing.
    """
    listed = folders.walk(folder, images.EXTENSIONS | images.VIDEO_EXTENSIONS)
    videos = {path: None for path in listed.files if path.suffix.lower() in images.VIDEO_EXTENSIONS}
    found = [Photo(path, None, _scene(path, folder)) for path in listed.files if path not in videos]
    faults = list(map(shown, listed.unreadable))
    if listed.others:
        tqdm.write(shown(f"{folder}: {folders.passed_over(listed.others)}"))
    files.tidy(cache, nested=True)
    if videos:
        extras.need("av", extras.VIDEO)
        takes_long()
        from b2b_jax.data import frames
    for video in videos:
        pictures, fault = frames.extract(video, cache, every, limit, thin)
        found += [Photo(path, None, video.relative_to(folder).as_posix()) for path in pictures]
        faults += [fault] if fault else []
    return found, faults


def _scene(path: Path, folder: Path) -> str:
    """The sub-folder; a photo beside the sub-folders is a scene of its own."""
    relative = path.relative_to(folder)
    return relative.as_posix() if relative.parent == Path() else relative.parent.as_posix()


def test_pairs(data: ConfigDict) -> list[Photo]:
    """Pairs of equal names in `data.test_blur` and `data.test_sharp`; none when nothing of SCORED is given."""
    if not any(data[key] for key in SCORED):
        return []
    blurry, sharp = together([partial(_by_name, data, key) for key in SCORED[:2]])
    missing = sorted(blurry.keys() - sharp.keys())
    if missing:
        raise UserError(f"data.test_sharp ({data.test_sharp}) lacks the twin of {missing[0]} ({len(missing)} missing)")
    return [Photo(path, sharp[name], "") for name, path in blurry.items()]


def kept_apart(data: ConfigDict, piles: dict[str, list[Photo]]) -> dict[str, list[Photo]]:
    """The piles without the photos to score on, be they copies or in folders within folders; says how many.

    Records of a prepared pile are not compared. UserError: of a pile nothing remains.
    """
    alike = defaultdict(list)
    for _, path in scored(data):
        alike[path.stat().st_size, _start(path)].append(path)
    sizes, kept = {size for size, _ in alike}, {}

    def to_score_on(file: File) -> bool:
        try:
            if not isinstance(file, Path) or (size := file.stat().st_size) not in sizes:
                return False
            return any(filecmp.cmp(file, path, False) for path in alike.get((size, _start(file)), ()))
        except OSError:  # which whoever reads it reports
            return False

    for name, photos in piles.items():
        kept[name] = [photo for photo in photos if not to_score_on(photo.blurry)]
        if not kept[name]:
            raise UserError(f"All photos of the pile {name} are test photos, too; training needs others")
        if left_out := len(photos) - len(kept[name]):
            print(f"{name}: left out of training, because they are test photos: {left_out} of {len(photos)}")
    return kept


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(START)


def known_twins(data: ConfigDict, photos: list[Photo]) -> list[Path]:
    """The photos in `data.test_known` of the names of test pairs in `data.test_blur`; none when it is not given."""
    if not data.test_known:
        return []
    found = _by_name(data, "test_known")
    names = [photo.blurry.relative_to(data.test_blur).with_suffix("").as_posix() for photo in photos]
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"data.test_known ({data.test_known}) lacks the twin of {missing[0]} ({len(missing)} missing)")
    return [found[name] for name in names]


def scored(data: ConfigDict) -> list[tuple[str, Path]]:
    """The photos that `data` gives to score on, each with its key of SCORED; UserError: a key gives none."""
    return [(key, path) for key in SCORED if data[key] for path in listed(data, key)]


def scored_digest(data: ConfigDict) -> str:
    """SHA-256 of the names and contents of all photos that `data` gives to score on; empty when it gives none.

    UserError: there are no such photos; ImageError: one cannot be opened.
    """
    lines = [f"{key} {path.relative_to(data[key]).as_posix()} {_content(path)}" for key, path in scored(data)]
    return _hashed(lines) if lines else ""


def digest(photos: Sequence[Photo], root: Path, contents: bool) -> str:
    """SHA-256 of the names below `root`, and the contents or else the sizes, of photos and their twins on disk."""
    paths = [path for photo in photos for path in (photo.blurry, photo.sharp) if isinstance(path, Path)]
    told = _content if contents else lambda path: path.stat().st_size
    return _hashed([f"{os.path.relpath(path, root)} {told(path)}" for path in paths])


def _content(path: Path) -> str:
    """SHA-256 of a photo's file; ImageError when it cannot be opened."""
    with images.open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hashed(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()


def _by_name(data: ConfigDict, key: str) -> dict[str, Path]:
    """Photos by their path within the folder, without suffix: twins may be of different formats."""
    found = {}
    for path in listed(data, key):
        name = path.relative_to(data[key]).with_suffix("").as_posix()
        if name in found:
            raise UserError(f"data.{key} has two photos of one name: {found[name]} and {path}")
        found[name] = path
    return found


def listed(section: ConfigDict, key: str, name: str = "data") -> list[Path]:
    """The photos in the folder that `key` of the config's section `name` gives; UserError when there are none."""
    folder = _given(section, key, name)
    return images.find(folder) or _refuse_empty(folder, key, name)


def _given(section: ConfigDict, key: str, name: str = "data") -> Path:
    if not section[key]:
        raise UserError(f"No {key} photos: give a folder of them, --config.{name}.{key}=DIR")
    if not Path(section[key]).is_dir():
        raise UserError(f"{name}.{key} is {section[key]}: no such folder")
    return Path(section[key])


def _refuse_empty(folder: Path, key: str, name: str = "data") -> None:
    raise UserError(f"{name}.{key} is {folder}: no photos in it (found: {finding.listing(folder)})")
