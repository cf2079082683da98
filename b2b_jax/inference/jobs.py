"""What a call of the command line is to do: its photos and videos, where each goes, what cannot or need not be done."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from b2b_jax import images
from b2b_jax.images import ImageError
from b2b_jax.inference import video

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


def collect(inputs: Iterable[Path], output: Path, kinds: Sequence[str], overwrite: bool) -> Jobs:
    """Lists the photos and videos of `inputs`, files and folders, and what to write for each under `output`.

    A file becomes output/name, a file in a folder output/its path within the folder; kinds: of RESTORED, TRANSLATED
    and SIDE_BY_SIDE. No target is an input, or the target of two; those that exist are written again only with
    `overwrite`.
    """
    jobs, found = Jobs([], [], []), {}
    for path in inputs:
        try:
            found |= dict.fromkeys(_listed(path, output))
        except ImageError as error:
            jobs.bad.append(str(error))
    sources, claimed = {source.resolve() for source, _ in found}, {}
    for source, relative in found:
        is_video = _is_video(source)
        targets = {kind: output / _named(relative, kind, is_video) for kind in kinds}
        problem = _problem(source, targets.values(), sources, claimed)
        wanted = {kind: path for kind, path in targets.items() if overwrite or not path.exists()}
        if problem:
            jobs.bad.append(f"{source}: {problem}")
        elif wanted:
            jobs.todo.append(Job(source, wanted, is_video))
        else:
            jobs.skipped.append(source)
    return jobs


def _listed(path: Path, output: Path) -> Iterator[tuple[Path, Path]]:
    """Yields files and their paths below the output; ImageError when a folder holds none or cannot be listed."""
    if not path.is_dir():
        yield path, Path(path.name)
        return
    # What an earlier call wrote is no input when the output lies within the folder.
    written = output.resolve() if path.resolve() in output.resolve().parents else None
    files = images.find(path, images.EXTENSIONS | images.VIDEO_EXTENSIONS)
    files = [file for file in files if written is None or written not in file.resolve().parents]
    if not files:
        raise ImageError(f"{path}: no photos or videos in this folder")
    yield from ((file, file.relative_to(path)) for file in files)


def _is_video(source: Path) -> bool:
    """By the first bytes: a photo never becomes a video, whatever its name. By the suffix when they tell nothing."""
    try:
        kind = images.kind(source)
    except ImageError:
        return source.suffix.lower() in images.VIDEO_EXTENSIONS
    if kind.name:
        return kind.is_video
    return source.suffix.lower() not in images.EXTENSIONS  # FFmpeg knows more kinds than `kinds` does


def _named(relative: Path, kind: str, is_video: bool) -> Path:
    """The path below the output folder: photo.jpg, photo_translated.jpg; photo.png in place of a photo.gif."""
    if is_video:
        suffix = video.output_suffix(relative)
    else:
        suffix = relative.suffix if relative.suffix.lower() in images.SAVE else ".png"
    return relative.with_name(relative.stem + ("" if kind == RESTORED else f"_{kind}") + suffix)


def _problem(source: Path, targets: Iterable[Path], sources: set[Path], claimed: dict[Path, Path]) -> str:
    """Why the targets cannot be written, "" if they can: then they are claimed for the source."""
    for target in targets:
        place = target.resolve()
        if place in sources:
            return f"its output {target} would overwrite an input; choose another --output"
        if place in claimed:
            return f"its output would be {target}, as that of {claimed[place]}; give one of them another --output"
    claimed |= {target.resolve(): source for target in targets}
    return ""
