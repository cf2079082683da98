"""What a call of the command line is to do: its photos and videos, where each goes, what cannot or need not be done."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from b2b_jax import files, folders, images
from b2b_jax.errors import shown
from b2b_jax.images import ImageError

# The containers that hold everything that is kept of a video, by suffix, and FFmpeg's names of them; videos in others
# become Matroska, which holds any codec's packets.
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
LONGEST_NAME = 255  # bytes, of nearly every file system
RESTORED, TRANSLATED, SIDE_BY_SIDE = "restored", "translated", "side_by_side"


class Job(NamedTuple):
    """One photo or video."""

    source: Path
    targets: dict[str, Path]  # by RESTORED, TRANSLATED and SIDE_BY_SIDE: the files to write
    is_video: bool


class Jobs(NamedTuple):
    """All of them."""

    todo: list[Job]
    skipped: list[Path]  # sources whose outputs are all there
    bad: list[str]  # a line each, which begins with a path
    others: list[Path]  # files in folders that are neither photos nor videos
    folders: set[Path]  # where outputs lie or will


def collect(inputs: Iterable[Path], output: Path, kinds: Sequence[str], overwrite: bool) -> Jobs:
    """Lists the photos and videos of `inputs`, files and folders, and what to write for each under `output`.

    A file becomes output/name, a file in a folder output/its path within the folder; kinds: of RESTORED, TRANSLATED and
    SIDE_BY_SIDE. One that gets another suffix keeps its own before it, so that an a.gif, which becomes a.gif.png, is
    never taken for the result of an a.png that is given later. One that is given twice is done once. No target is an
    input, or the target of two. Targets that exist are written again only with `overwrite`.
    """
    jobs, found = Jobs([], [], [], [], set()), {}
    for path in inputs:
        with _named(path, jobs.bad):
            for source, relative in _listed(path, output, jobs):
                found.setdefault((os.path.abspath(source), relative), source)
    wishes = []
    for (_, relative), source in found.items():
        with _named(source, jobs.bad):
            wishes.append(_wish(source, relative, output, kinds))
    claims = Claims(set(map(os.path.realpath, found.values())), {}, {})
    given = {}
    for wish in sorted(wishes, key=lambda wish: not wish.keeps_its_name):
        with _named(wish.source, jobs.bad):
            given[wish.source, wish.place] = claims.targets(wish)
    for wish in wishes:
        if targets := given.get((wish.source, wish.place)):
            _add(jobs, wish, targets, overwrite)
    return jobs


@contextlib.contextmanager
def _named(path: Path, bad: list[str]) -> Iterator[None]:
    """Puts what is wrong with an input into `bad`, so that the others are done."""
    try:
        yield
    except ImageError as error:
        bad.append(str(error))
    except OSError as error:  # its name is too long, its folder cannot be entered
        bad.append(shown(f"{path}: {error.strerror}"))


def _listed(path: Path, output: Path, jobs: Jobs) -> Iterator[tuple[Path, Path]]:
    """Yields files and their paths below the output; ImageError where there are none. Notes what is no input."""
    if not path.exists() and not path.is_symlink():
        raise ImageError(f"{path}: no such file")
    if not path.is_dir():
        yield path, Path(path.name)
        return
    # What an earlier call wrote is no input when the output lies within the folder, or is it, as in `deblur *`.
    mine, written = Path(os.path.realpath(path)), Path(os.path.realpath(output))
    if mine == written:
        raise ImageError(f"{path}: the folder that outputs go to, so no input; for its files choose another --output")
    within = mine in written.parents
    found = folders.walk(path, images.EXTENSIONS | images.VIDEO_EXTENSIONS)
    listed = [file for file in found.files if not within or written not in Path(os.path.realpath(file)).parents]
    jobs.bad.extend(map(shown, found.unreadable))
    if not listed and not found.unreadable:
        others = "".join(f"; {text}" for text in filter(None, [folders.passed_over(found.others)]))
        raise ImageError(f"{path}: no photos or videos in this folder{others}")
    jobs.others.extend(found.others)
    yield from ((file, file.relative_to(path)) for file in listed)


class Wish(NamedTuple):
    """Where an input would like its outputs."""

    source: Path
    place: Path  # the restored photo's without its suffix, were nobody else to want it
    suffix: str
    kinds: Sequence[str]
    is_video: bool
    keeps_its_name: bool  # the output is called as the input

    def targets(self, name: str) -> dict[str, Path]:
        """The files to write, by their kind: name.jpg, name_translated.jpg."""
        ends = {kind: "" if kind == RESTORED else f"_{kind}" for kind in self.kinds}
        return {kind: self.place.with_name(f"{name}{end}{self.suffix}") for kind, end in ends.items()}


def _wish(source: Path, relative: Path, output: Path, kinds: Sequence[str]) -> Wish:
    is_video = _is_video(source)
    if is_video:
        suffix = output_suffix(relative)
    else:
        suffix = relative.suffix if relative.suffix.lower() in images.SAVE else ".png"
    keeps = suffix == relative.suffix
    place = output / (relative.with_name(relative.stem) if keeps else relative)
    return Wish(source, place, suffix, kinds, is_video, keeps)


class Claims(NamedTuple):
    """What no output may be: an input, or the output of another input."""

    sources: set[str]
    taken: dict[str, Path]
    caseless: dict[str, Path]  # as `taken`, by paths without upper case

    def targets(self, wish: Wish) -> dict[str, Path]:
        """The files to write for an input, which are then its own; ImageError when they would be another's."""
        names = [wish.place.name, *(f"{wish.place.name}_{number}" for number in range(2, 100))]
        for name in names[: 1 if wish.keeps_its_name else None]:
            targets = wish.targets(name)
            problem = next(filter(None, map(self._problem, targets.values())), "")
            if not problem:
                places = list(map(os.path.realpath, targets.values()))
                self.taken.update(dict.fromkeys(places, wish.source))
                self.caseless.update(dict.fromkeys(map(str.casefold, places), wish.source))
                return targets
        raise ImageError(f"{wish.source}: {problem}")

    def _problem(self, target: Path) -> str:
        if len(os.fsencode(target.name)) > LONGEST_NAME:
            return f"the name of its output {target} is longer than {LONGEST_NAME} bytes; rename the input"
        place = os.path.realpath(target)
        if place in self.sources:
            return f"its output {target} would overwrite an input; choose another --output"
        if place in self.taken:
            return f"its output would be {target}, as that of {self.taken[place]}; give one of them another --output"
        other = self.caseless.get(place.casefold())
        if other and files.ignores_case(target.parent):
            same = f"its output {target} and that of {other} would be one file on this disk, which ignores case"
            return f"{same}; give one of them another --output"
        return ""


def _add(jobs: Jobs, wish: Wish, targets: dict[str, Path], overwrite: bool) -> None:
    """Sorts an input into the jobs."""
    with _named(wish.source, jobs.bad):
        wanted = {kind: path for kind, path in targets.items() if overwrite or not _is_done(path)}
        jobs.folders.update(path.parent for path in targets.values())
        if wanted:
            jobs.todo.append(Job(wish.source, wanted, wish.is_video))
        else:
            jobs.skipped.append(wish.source)


def _is_done(target: Path) -> bool:
    """True for an output that is there; after a power cut it may be empty, and then it is not."""
    return target.is_file() and target.stat().st_size > 0


def output_suffix(source: Path) -> str:
    """The suffix of the video that is made of a video."""
    return source.suffix if source.suffix.lower() in CONTAINERS else ".mkv"


def _is_video(source: Path) -> bool:
    """By the first bytes: a photo never becomes a video, whatever its name. By the suffix when they tell nothing."""
    try:
        kind = images.kind(source)
    except ImageError:
        return source.suffix.lower() in images.VIDEO_EXTENSIONS
    if kind.name:
        return kind.is_video
    return source.suffix.lower() not in images.EXTENSIONS  # FFmpeg knows more kinds than `kinds` does
