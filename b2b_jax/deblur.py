"""Deblurs photos, folders of them and videos.

    python -m b2b_jax.deblur photo.jpg --model demo --output sharp/
    python -m b2b_jax.deblur photo.jpg --model runs/mine --output sharp/
    python -m b2b_jax.deblur clip.mp4 holiday/ --model runs/mine --output sharp/ --keep-translated
    python -m b2b_jax.deblur clip.mp4 --model runs/mine --output sharp/ --side-by-side
    python -m b2b_jax.deblur photo.jpg --model weights/nafnet_gopro64.safetensors --output sharp/
    python -m b2b_jax.deblur photo.jpg --translator G.safetensors --deblurrer D.safetensors --output sharp/

Photos: JPEG, PNG, TIFF, WebP and the like, raw photos, HEIC and JPEG XL with their extras, of 8 or 16 bits. Grey,
transparency, ICC profile, EXIF, XMP, IPTC and resolution are kept, the EXIF orientation is applied, CMYK becomes RGB;
of animations and multi-page files the first picture is taken (docs/files.md has the whole table). An output has its
input's name, with .png behind it where that format cannot be written: a.gif becomes a.gif.png. JPEG is written at
quality 95, without chroma subsampling.

Videos: sound and subtitles are copied, time stamps, rotation, colour tags, titles and chapters kept; frames that are
damaged or cut off are left out and counted (--on-error); what is lost is reported. The pictures become H.264 (VP9 in
.webm); containers other than .mp4, .m4v, .mov, .mkv and .webm become .mkv: clip.avi becomes clip.avi.mkv.

--side-by-side also writes NAME_side_by_side: the input on the left, the result on the right, and the translator's
output between them with --keep-translated. What is too large for decoders, such as two 4K clips, is shrunk, and that is
reported; where a photo would be too wide for its format, its pictures are stacked.

Outputs are DIR/NAME, in deblurred/ without --output; what was found in a folder keeps its place below it. Outputs that
exist are skipped, so the same command resumes after a stop. Files that cannot be done are listed at the end, after all
the others are done.

Exit codes: 0 done; 2 files could not be read or written, one line each, or the call is wrong; 1 a fault of ours;
129, 130 and 143 stopped by the end of the terminal, Ctrl-C or SIGTERM, with nothing half-written.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import jax
import numpy as np
from tqdm import tqdm

from b2b_jax import extras, files, folders, memory, networks, system, terminal
from b2b_jax import named as named_networks
from b2b_jax.errors import UserError, VideoError, disk_fault, shown
from b2b_jax.images import ImageError
from b2b_jax.inference import background, jobs, panels, photos, tiles
from b2b_jax.inference.jobs import RESTORED, SIDE_BY_SIDE, TRANSLATED, Job, Jobs
from b2b_jax.inference.photos import Photo
from b2b_jax.inference.tiles import Restorer
from b2b_jax.system import METHODS, Choice, Deblurrer
from b2b_jax.training import signals

OUTPUT = Path("deblurred")
STOPPED = "Stopped; nothing is half-written, and the same command resumes from here."

Say = Callable[[str], object]  # what hears a line


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    terminal.protect()
    memory.keep()
    try:
        with terminable():
            args = parse(argv)
            choice = choose(args)
            for path in filter(None, (choice.translator, choice.deblurrer)):
                networks.check_there(path)  # also where all outputs exist and nothing is loaded
            found = jobs.collect(args.inputs, args.output, kinds(args), args.overwrite)
            check_writable(found.todo)
            for folder in found.folders:
                files.tidy(folder)
            failed = run(found.todo, load_restorer(choice, args), args.on_error) if found.todo else []
            return summarise(found, failed, args.output)
    except UserError as error:
        print(f"deblur: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno is None:
            raise
        line, code = disk_fault(error)
        print(f"deblur: {line}", file=sys.stderr)
        return code
    except KeyboardInterrupt:  # before signals are watched
        print(STOPPED, file=sys.stderr)
        return 130


# ----------------------------------------------------------------------------------------------------- the command line


class Parser(terminal.Parser):
    """Mistakes are UserErrors."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help explains")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command line to its values; UserError when it is not understood."""
    parser = Parser("deblur", __doc__)
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        type=files.given,
        metavar="INPUT",
        help="photos, videos, folders of them, nested or flat",
    )
    add("--output", type=files.given, default=OUTPUT, metavar="DIR", help=f"where the results go (default: {OUTPUT})")
    add(
        "--model",
        type=files.given,
        help="a run's folder, a .safetensors, or a name that b2b-jax models lists",
    )
    add("--method", choices=METHODS, help=METHOD_HELP)
    add("--translator", type=files.given, metavar="FILE", help="the network that runs first, in place of the model's")
    add("--deblurrer", type=files.given, metavar="FILE", help="the network that runs last, in place of the model's")
    add("--keep-translated", action="store_true", help="also write the translator's output, as NAME_translated")
    add("--side-by-side", action="store_true", help="also write input and result in one, as NAME_side_by_side")
    add("--on-error", choices=("skip", "stop"), default="skip", help=ON_ERROR_HELP)
    add("--overwrite", action="store_true", help="replace outputs that exist")
    add("--tile", type=int, default=0, metavar="PIXELS", help=TILE_HELP)
    add("--overlap", type=int, default=tiles.OVERLAP, metavar="PIXELS", help="least overlap of tiles (default: 64)")
    add("--train-size", type=int, metavar="PIXELS", help=TRAIN_SIZE_HELP)
    args = parser.parse_args(argv)
    if args.tile < 0 or args.overlap < 0 or (args.train_size or 0) < 0:
        parser.error("--tile, --overlap and --train-size cannot be negative")
    if args.output.exists() and not args.output.is_dir():
        parser.error(f"--output {args.output} is a file, wanted a folder")
    return args


METHOD_HELP = (
    "which of a run's systems. adapted_consistent, adapted: its deblurrer adapted to the camera, with and without "
    "making the result agree with the photo; consistent, kernel_field: its deblurrer behind the kernel field, "
    "likewise; blur2blur: behind the translator; deblurrer: alone "
    "(default: what its evaluation found best; without one, the first of these that the run has)"
)
TILE_HELP = (
    "largest side of the tiles that a photo is cut into, which bounds the memory (default 0: the whole photo if the "
    f"networks need at most half of an accelerator's free memory, or a quarter of a computer's and 4 GiB; else "
    f"{tiles.TILE}, or more where the networks need wide overlaps)"
)
ON_ERROR_HELP = (
    "what becomes of a video with damaged frames or a lost end: skip does all whole frames and counts the others "
    "(default), stop refuses it"
)
TRAIN_SIZE_HELP = (
    "NAFNet takes its means over windows of 1.5 times the crops it was trained on (TLC); this is the side of those "
    "crops, 0 for means over the whole photo or tile (default: what the run or its file says; 256 for a converted file)"
)


def kinds(args: argparse.Namespace) -> list[str]:
    """What is written of each input."""
    asked = {TRANSLATED: args.keep_translated, RESTORED: True, SIDE_BY_SIDE: args.side_by_side}
    return [kind for kind, wanted in asked.items() if wanted]


def check_writable(todo: list[Job]) -> None:
    """OSError where none of the folders that outputs go to can be written: before a network is loaded."""
    faults = []
    for folder in sorted({path.parent for job in todo for path in job.targets.values()}):
        try:
            return files.check_writable(folder)
        except OSError as error:
            faults.append(error)
    if faults:
        raise faults[0]


def terminable() -> contextlib.AbstractContextManager[None]:
    """Lets SIGTERM, Ctrl-C and the end of the terminal end the program at once, with no draft left behind."""
    return signals.watch(lambda number: signals.end(number, STOPPED))


# --------------------------------------------------------------------------------------------------------- the networks


def load_restorer(choice: Choice, args: argparse.Namespace) -> Restorer:
    """The networks of the call, ready to run; UserError when they are missing or do not turn photos into photos."""
    chain = system.open_networks(choice)
    deblurrer = Deblurrer(chain, args.tile, args.overlap, keep=2 if args.keep_translated else 1)
    print(deblurrer)
    return deblurrer.restorer


# By option, the methods that are made for the very network which its file would take the place of.
REPLACED = {
    "translator": ("kernel_field", "consistent", "adapted_consistent"),
    "deblurrer": ("deblurrer", "adapted", "adapted_consistent"),
}


def choose(args: argparse.Namespace) -> Choice:
    """Which files the command line means: --translator and --deblurrer before what --model holds."""
    if args.model:
        if warning := named_networks.warning(args.model):
            print(warning)
        args.model = named_networks.located(args.model)
    is_run = args.model and args.model.is_dir()
    if args.method and not is_run:
        raise UserError("--method chooses among the systems of a run: give its folder as --model")
    given = [option for option in REPLACED if getattr(args, option)]
    for option in given:
        if args.method and (args.method in REPLACED[option] or len(given) == len(REPLACED)):
            raise UserError(f"--method {args.method} chooses what --{option} replaces: leave out one of the two")
    both = args.keep_translated or args.translator or args.deblurrer  # what only a system of two networks has
    method = args.method or ("blur2blur" if both else "")
    model = system.from_run(args.model, method) if is_run else Choice(None, args.model, None)
    size = args.train_size
    if size is None and not args.deblurrer:
        size = model.train_size
    deblurrer = args.deblurrer or model.deblurrer
    if deblurrer is None:
        raise UserError("no deblurrer: give --model (a run's folder or a .safetensors) or --deblurrer FILE")
    translator = args.translator or model.translator
    if args.keep_translated and translator is None:
        raise UserError("--keep-translated needs a translator: give --translator FILE or a run's folder as --model")
    if args.translator:
        return Choice(translator, deblurrer, size)
    if args.keep_translated and (model.consistent or model.step):
        ways = "does not translate a photo" if model.step else "translates a photo in several ways"
        raise UserError(f"--method {method} {ways}: leave out --keep-translated")
    return Choice(translator, deblurrer, size, model.consistent, model.step)


# ------------------------------------------------------------------------------------------------------------ the files


def run(todo: list[Job], restorer: Restorer, on_error: str = "skip", say: Say = tqdm.write) -> list[str]:
    """Does the jobs; returns a line for each that could not be done. `on_error` is told to `video.convert`.

    `say` hears, in a line for each file, what its owner should know. While a photo or video is restored, the photo
    after it is read and the one before it written.
    """
    bad: dict[Path, str] = {}
    with background.ahead(read_photo, todo, 1) as started, background.behind(1) as later:
        for job, reading in terminal.bar(started, desc="files", total=len(todo), unit="file", disable=len(todo) == 1):
            with named(job, bad):
                if job.is_video:
                    tell(job, deblur_video(job, restorer, on_error), say)
                else:
                    photo = reading.result()
                    later(write_photo, job, photo, deblur_photo(job, photo.pixels, restorer), bad, say)
    return [bad[job.source] for job in todo if job.source in bad]


@contextlib.contextmanager
def named(job: Job, bad: dict[Path, str]) -> Iterator[None]:
    """Puts what is wrong with a job's file under its path into `bad`; a fault of ours passes through."""
    try:
        yield
    except (ImageError, VideoError, UserError) as error:
        bad[job.source] = reason(job.source, str(error))
    except OSError as error:
        bad[job.source] = reason(job.source, disk_fault(error)[0] if error.errno and error.filename else str(error))
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        bad[job.source] = reason(job.source, "needs more memory than there is; try a smaller --tile")


def tell(job: Job, note: str, say: Say) -> None:
    """Says what the file's owner should know."""
    if note:
        say(shown(f"{job.source}: {note}"))


def read_photo(job: Job) -> Photo | None:
    """The photo of a job; None for a video, whose frames are read as they are needed."""
    return None if job.is_video else photos.read(job.source)


def deblur_photo(job: Job, pixels: np.ndarray, restorer: Restorer) -> np.ndarray:
    """The restored colours of a photo (h, w, 3), for all targets side by side."""
    plan = restorer.plan(*pixels.shape[:2])
    with terminal.bar(total=plan.tiles, desc=shown(job.source.name), unit="tile", leave=False) as bar:
        return restorer.photo(pixels, plan, bar.update)


def write_photo(job: Job, photo: Photo, restored: np.ndarray, bad: dict[Path, str], say: Say) -> None:
    """Writes a photo with restored colours to its targets."""
    with named(job, bad):
        if SIDE_BY_SIDE in job.targets:
            restored = np.concatenate([photo.pixels, restored], axis=-1)
        notes = [photo.note]
        for path, channels in slices(job, restored.shape[-1]).items():
            written, note = panels.photo(photo, restored[..., channels], path.suffix)
            notes += [note, photos.write(path, written)]
        tell(job, "; ".join(filter(None, dict.fromkeys(notes))), say)


def deblur_video(job: Job, restorer: Restorer, on_error: str) -> str:
    """Restores a video; returns what its owner should know. UserError: the package that reads videos is missing."""
    extras.need("av", extras.VIDEO)
    from b2b_jax.inference import video

    count = video.count_frames(job.source) or None
    both = SIDE_BY_SIDE in job.targets
    networks = panels.after_input(restorer.frames) if both else restorer.frames
    start, done = time.monotonic(), 0
    with terminal.bar(total=count, desc=shown(job.source.name), unit="frame", leave=False) as bar:

        def restore(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            nonlocal done
            for frame in networks(frames):
                yield frame
                done += 1
                bar.update()

        note = video.convert(job.source, slices(job, restorer.channels + 3 * both), restore, on_error)
    rate = f"{done} frame{'s' * (done != 1)}, {done / (time.monotonic() - start):.1f} frames/s"
    return "; ".join(filter(None, [rate, note]))


def slices(job: Job, channels: int) -> dict[Path, slice]:
    """The channels that each target takes of the input, if that is wanted, the translated and the restored photo."""
    last = channels - 3
    places = {RESTORED: slice(last, channels), TRANSLATED: slice(last - 3, last), SIDE_BY_SIDE: slice(0, channels)}
    return {path: places[kind] for kind, path in job.targets.items()}


def reason(source: Path, message: str) -> str:
    """One line that begins with the file's path and tells why it could not be done."""
    named = message.startswith((str(source), shown(source)))
    return shown(message if named else f"{source}: {' '.join(message.split())}")


def summarise(found: Jobs, failed: list[str], output: Path) -> int:
    """Prints how the call went and returns its exit code."""
    bad, skipped = found.bad + failed, len(found.skipped)
    skips = f", {skipped} skipped (their outputs exist; --overwrite replaces them)" if skipped else ""
    others = "".join(f"; {text}" for text in filter(None, [folders.passed_over(found.others)]))
    print(f"{len(found.todo) - len(failed)} written to {shown(output)}{skips}{shown(others)}")
    if bad:
        print(f"{len(bad)} could not be done:", *bad, sep="\n  ", file=sys.stderr)
    return 2 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
