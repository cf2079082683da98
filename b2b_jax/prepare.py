"""Copies a dataset's photos, unchanged, into a few large ArrayRecord files, with their scenes, sizes and sharpness.

    python -m b2b_jax.prepare reds --source ~/downloads/REDS --output data/prepared
    python -m b2b_jax.prepare folder --source shots/ --output packed/shots

Training reads the datasets in data/prepared in place of their downloads (--config.data.prepared names another folder
below data/), and packed/shots as --config.data.unknown_blur. Stopped at any moment, the same command resumes; once it
has finished, it only prints the counts. The output takes as much disk as the photos.

A source whose files have other names or sizes than those that were prepared is refused. Neither times, which a copy
changes, nor contents are compared: after editing a photo to the same size, as of a .bmp, remove the output first.

Exit codes: 0 done; 2 the input is wrong (one line on stderr); 1 the disk is full; 130 stopped by Ctrl-C.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from b2b_jax import files, terminal
from b2b_jax.data import finding, folder, photo, prepared
from b2b_jax.data.layouts import LAYOUTS
from b2b_jax.data.photo import Photo
from b2b_jax.errors import UserError, disk_fault, shown
from b2b_jax.images import ImageError

ADVICE = "; repair or remove it and run the same command again: it resumes"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    terminal.protect()
    args = _parser().parse_args(argv)
    try:
        parts = find(args)
        prepared.prepare(args.dataset, args.source, parts, args.output, args.variant)
    except (UserError, ImageError) as error:
        print(f"prepare: {shown(error)}{ADVICE if isinstance(error, ImageError) else ''}", file=sys.stderr)
        return 2
    except OSError as error:
        line, code = disk_fault(error)
        print(f"prepare: {line}", file=sys.stderr)
        return code
    except KeyboardInterrupt:
        print("prepare: stopped; the same command resumes from here", file=sys.stderr)
        return 130
    for part, photos in parts.items():
        print(_row(args.dataset, part, len(photos), finding.other_kinds(args.dataset, part, photos)))
    return 0


def find(args: argparse.Namespace) -> Mapping[str, Sequence[Photo]]:
    """The photos by part; of a folder of one's own also the frames of its videos, which are kept beside the output."""
    if args.dataset != "folder":
        return finding.find_all(args.dataset, args.source, "--source", args.variant)
    if not args.source.is_dir():
        raise UserError(f"--source is {args.source}: no such folder")
    photos, faults = folder.photos(args.source, args.output / "frames", args.every, args.limit, args.thin)
    photos, unusable = sifted(photos)
    print("".join(f"skipped: {shown(fault)}\n" for fault in (*faults, *unusable)), end="", file=sys.stderr)
    if not photos:
        raise UserError(f"no photos in {args.source} (found: {finding.listing(args.source)})")
    return {"photos": photos}


def sifted(found: Sequence[Photo]) -> tuple[list[Photo], list[str]]:
    """The photos whose first bytes are those of photos, and a line for each of the others."""

    def fault(one: Photo) -> str:
        try:
            photo.size(one.blurry)
        except ImageError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor() as pool:
        lines = list(pool.map(fault, found))
    return [one for one, line in zip(found, lines, strict=True) if not line], list(filter(None, lines))


def _row(dataset: str, part: str, count: int, others: str = "") -> str:
    """A part's count beside the published one; `others` are the kinds of photos that are not as published."""
    published = LAYOUTS[dataset].parts[part].photos
    verdict = "as published" if count == published else f"{published:,} published: the download differs"
    verdict += f"; photos are {others}, not as published" if others else ""
    return f"{part:<14} {count:>7,} photos" + (f"   {verdict}" if published else "")


def _parser() -> terminal.Parser:
    parser = terminal.Parser("prepare", __doc__)
    parser.add_argument("dataset", choices=LAYOUTS, help="what the download is")
    parser.add_argument("--source", type=files.given, required=True, metavar="DOWNLOAD", help="folder of the download")
    parser.add_argument("--output", type=files.given, required=True, metavar="DIR", help="folder for prepared datasets")
    videos = parser.add_argument_group("frames of videos (folder)")
    videos.add_argument("--every", type=int, default=10, metavar="N", help="look at each N-th frame (10)")
    videos.add_argument("--limit", type=int, default=200, metavar="N", help="keep at most N of a video (200; 0 = all)")
    videos.add_argument("--thin", type=float, default=1.0, metavar="LEVELS", help="least difference of frames (1.0)")
    parser.add_argument("--variant", default="", help="gopro: blur or blur_gamma; curated: the part's folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
