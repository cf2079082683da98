"""Finds the photos of a dataset in its download, or says what is there instead of them."""

import json
import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from b2b_jax import folders, images
from b2b_jax.data.layouts import LAYOUTS, Part
from b2b_jax.data.photo import Photo
from b2b_jax.errors import UserError


def find(name: str, root: Path, part: str, option: str, variant: str = "") -> list[Photo]:
    """Lists `part` of the layout `name` under `root`, sorted by path.

    Args:
        option: of the command line that sets `root`, for errors.
        variant: one of the layout's; "" = its first.

    Raises UserError when the folder, its photos or their twins are missing; it says what was wanted and what is there.
    """
    layout = LAYOUTS[name]
    if not root.is_dir():
        raise UserError(
            f"The {name} dataset is missing: no folder {root}. Get {layout.source}, or say where: {option}=DIR"
        )
    entry = _filled(layout.parts[part], choose_variant(name, root, option, variant))
    photos = _listed(entry, part, root) or _globbed(entry, root) or _spread(entry, root)
    if not photos:
        raise UserError(_nothing_found(name, part, entry, root, option))
    files = [file for photo in photos for file in (photo.blurry, photo.sharp) if file]
    missing = [path for path in files if not path.is_file()]
    if missing:
        twins = missing[0] in {photo.sharp for photo in photos}
        what = "blurry have no sharp twin" if twins else "listed photos are not there"
        raise UserError(f"{len(missing)} of {len(photos)} {what}: {missing[0]} is missing")
    return photos


def find_all(name: str, root: Path, option: str, variant: str = "") -> dict[str, list[Photo]]:
    """All parts of a layout, as `find` lists each."""
    return {part: find(name, root, part, option, variant) for part in LAYOUTS[name].parts}


def choose_variant(name: str, root: Path, option: str, variant: str) -> str:
    """The variant asked for, or the layout's default; UserError when it has no such one."""
    layout = LAYOUTS[name]
    option = variant_option(name, option)
    if layout.variants:
        if variant and variant not in layout.variants:
            known = " or ".join(filter(None, layout.variants)) or "no variants"
            raise UserError(f"{option} is {variant!r}; {name} has {known}")
        return variant or layout.variants[0]
    if not variant or not (root / variant).is_dir():
        raise UserError(f"{option} is {variant!r}; it must name a folder in {root}, which has {listing(root)}")
    return variant


def variant_option(name: str, option: str) -> str:
    """The option of the command line for the variant of the layout `name` whose root `option` sets."""
    if option == "--source":  # of `prepare`
        return "--variant"
    return option.replace("_path", "_variant") if LAYOUTS[name].variants else "--config.data.name"


def _filled(part: Part, variant: str) -> Part:
    """The part with its variant in place of {variant}."""
    twin = tuple((old.replace("{variant}", variant), new) for old, new in part.twin)
    return replace(part, blur=part.blur.replace("{variant}", variant), twin=twin)


# --------------------------------------------------------------------------------------------------- finding the photos


def _globbed(part: Part, root: Path) -> list[Photo]:
    return [_photo(part, root, path) for path in _blurry(part, root)]


def _blurry(part: Part, root: Path) -> list[Path]:
    """The blurry photos in order, of the published kind or, where none is of it, of another kind of photo."""
    stem, published = os.path.splitext(part.blur)
    published = "" if "*" in published else published.lower()  # every kind
    folder, deep, _ = part.blur.partition("**/*")  # a layout with ** has no other wildcard
    found = _below(root / folder) if deep else root.glob(stem + ".*" if published else part.blur)
    paths = [path for path in found if _is_photo(path, root)]
    return sorted([path for path in paths if path.suffix.lower() == published] or paths)


def _below(folder: Path) -> list[Path]:
    """The photos below the folder, nested or flat, those in linked folders too; each real folder once."""
    paths = folders.walk(folder, images.EXTENSIONS).files
    places = {place: _unlinked(place, folder) for place in {path.parent for path in paths}}
    return [places[path.parent] / path.name for path in paths]


def _unlinked(place: Path, folder: Path) -> Path:
    """A place below the folder as the path without links that leads from there to it, if one does."""
    direct = folder / os.path.relpath(place.resolve(), folder.resolve())
    outside = any(map(folders.made_by_machine, direct.relative_to(folder).parts))  # "..", or hidden
    return place if outside else direct


def _is_photo(path: Path, root: Path) -> bool:
    """True for a photo's suffix, in any case, unless the path leads through what no person put there."""
    kind = path.suffix.lower() in images.EXTENSIONS
    return kind and not any(map(folders.made_by_machine, path.relative_to(root).parts))


def _photo(part: Part, root: Path, path: Path) -> Photo:
    relative = path.relative_to(root).as_posix()
    return Photo(path, root / _twin(part, relative) if part.twin else None, _scene(part, relative))


def _twin(part: Part, relative: str) -> str:
    """The path of the sharp twin; of the blurry photo's kind, not always the published one."""
    suffix = os.path.splitext(relative)[1]
    for old, new in part.twin:
        relative = relative.replace(old.replace(".png", suffix), new.replace(".png", suffix))
    return relative


def _spread(part: Part, root: Path) -> list[Photo]:
    """The pairs of a download of which each archive was unpacked into a folder of its own; none if it is not so."""
    places = _folders(root, "*")
    photos = []
    for place in places if part.twin else []:
        for path in _blurry(part, place):
            relative = path.relative_to(place).as_posix()
            twin = next(
                (other / _twin(part, relative) for other in places if (other / _twin(part, relative)).is_file()), None
            )
            if twin is None or twin.is_relative_to(place):  # all of it lies there: that folder is the root
                return []
            photos.append(Photo(path, twin, _scene(part, relative)))
    return photos


def _scene(part: Part, relative: str) -> str:
    found = re.search(part.scene, relative)
    return found.group(1) if found and found.group(1) else relative


def _listed(part: Part, name: str, root: Path) -> list[Photo]:
    """The pairs that the part's list file names; none when there is no such file in or beside the download."""
    places = (root, root.parent, root / "datalist", root / "datalist" / root.name)
    path = next((place / part.listing for place in places if (place / part.listing).is_file()), None)
    if not part.listing or path is None:
        return []
    pairs = _read_json_list(path, name) if path.suffix == ".json" else _read_list(path)
    base = _base(pairs[0][0], root) if pairs else None
    photos = [Photo(base(blurry), base(sharp), _scene(part, blurry)) for blurry, sharp in pairs]
    return sorted(photos, key=lambda photo: photo.blurry)


def _read_list(path: Path) -> list[tuple[str, str]]:
    """Blurry and sharp paths of a text file with a line "sharp blurry" for each pair."""
    lines = [line.split() for line in path.read_text(errors="surrogateescape").splitlines() if line.strip()]
    wrong = [number for number, words in enumerate(lines, 1) if len(words) != 2]
    if wrong or not lines:
        what = f"line {wrong[0]} has not" if wrong else "it is empty, without a line of"
        raise UserError(f"{path}: {what} two paths, sharp and blurry, with a space between")
    return [(blurry, sharp) for sharp, blurry in lines]


def _read_json_list(path: Path, part: str) -> list[tuple[str, str]]:
    """Blurry and middle sharp paths of RB2V's metadata.json."""
    try:
        content = json.loads(path.read_text(errors="surrogateescape"))
        middle = f"frame{(content['frame_per_seq'] + 1) // 2:03d}_path"
        return [(row["blur_path"], row[middle]) for row in content["data"] if row["partition"] == part]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not RB2V's list of frames ({error!r}); get it anew or remove it") from error


def _base(example: str, root: Path) -> Callable[[str], Path]:
    """How a listed path becomes one on disk: from the root, from beside it, or without the root's official name."""
    ways = (
        lambda text: root / text,
        lambda text: root.parent / text,
        lambda text: root.joinpath(*Path(text).parts[1:]),
    )
    return next((way for way in ways if way(example).is_file()), ways[0])


# --------------------------------------------------------------------------------------------------------------- errors


def _nothing_found(name: str, part_name: str, part: Part, root: Path, option: str) -> str:
    layout = LAYOUTS[name]
    wanted = f"{root}/{part.blur}" + (f" and no {part.listing} in {root} or beside it" if part.listing else "")
    message = f"No photos of {name} at {wanted}; found there: {listing(root)}."
    for variant in layout.variants:
        if _blurry(_filled(layout.parts[part_name], variant), root):
            return f"{message} There is {variant}: {variant_option(name, option)}={variant}"
    meant, inner = _elsewhere(root, part)
    if meant:
        return f"{message} Did you mean {meant}? Then {option}={shlex.quote(str(meant))}"
    if inner:
        return f"{message} {root}/{inner} would fit in {root}/{part.blur.removesuffix(inner)}: move it there"
    return f"{message} Get {layout.source}, or give the folder that holds {part.blur.split('/')[0]}/: {option}=DIR"


def _elsewhere(root: Path, part: Part) -> tuple[Path | None, str]:
    """A folder near `root` that holds the part, and the tail of its pattern that matches at `root` itself."""
    near = [root.parent, *_folders(root, "*"), *_folders(root, "*/*")]
    meant = next((folder for folder in near if _fits(folder, part)), None)
    steps = part.blur.split("/")
    tails = ("/".join(steps[start:]) for start in range(1, len(steps) - 1) if not steps[start].startswith("*"))
    return meant, next((tail for tail in tails if any(root.glob(tail))), "")


def _folders(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in root.glob(pattern) if path.is_dir())


def _fits(folder: Path, part: Part) -> bool:
    first = next(iter(_globbed(part, folder)), None)
    whole = first is not None and (first.sharp is None or first.sharp.is_file())
    return whole or bool(part.listing and (folder / part.listing).is_file())


def other_kinds(name: str, part: str, photos: Sequence[Photo]) -> str:
    """The kinds of photos that are not the published one, ".jpg", as lossy ones cannot be compared with it; else ""."""
    published = os.path.splitext(LAYOUTS[name].parts[part].blur)[1].lower()
    kinds = {os.path.splitext(str(photo.blurry))[1].lower() for photo in photos}
    return "" if "*" in published or not published else ", ".join(sorted(kinds - {published}))


def listing(folder: Path, most: int = 5) -> str:
    """The first few names in `folder`, for an error's "found there"."""
    names = sorted(p.name for p in folder.iterdir() if not folders.made_by_machine(p.name))
    return "nothing" if not names else ", ".join(names[:most]) + (", …" if len(names) > most else "")
