"""How well hands are found in a clip before and after deblurring, by MediaPipe: the paper's use for hand tracking.

    python tools/hands.py before.mp4 sharp/before.mp4
    python tools/hands.py before.mp4 sharp/before.mp4 other/before.mp4 --output hands.json

Prints a Markdown table: in how many of a clip's frames a hand is found, and how sure MediaPipe is of it. Every frame is
looked at by itself, unless --track lets a hand of the frame before help. The confidence of a frame is its surest
hand's score for being a left or a right one, the only score that MediaPipe gives; the mean is over the frames with a
hand, and empty without any.

The model is the one inside MediaPipe's packages up to 0.10.21, for Python up to 3.12: pip install 'b2b_jax[hands]'.
Exit codes: 0 done; 2 MediaPipe, its model or a clip is missing (one line on stderr).
"""

import argparse
import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from b2b_jax import clips
from b2b_jax.errors import UserError
from b2b_jax.files import write_json

Detector = Callable[[np.ndarray], Sequence[float]]  # the confidences of the hands in a frame, uint8 (h, w, 3)
INSTALL = "pip install 'mediapipe<0.10.30', for Python up to 3.12"


@dataclass(frozen=True)
class Row:
    """What was found in a clip."""

    clip: str
    frames: int
    frames_with_hand: int
    detection_rate: float
    mean_confidence: float | None  # None: no hand


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        check_package()
        rows = []
        for clip in [options.input, *options.outputs]:
            with mediapipe_hands(options.confidence, options.track) as detect:
                rows.append(count(clip, frames(clip), detect))
        print(table(rows))
        if options.output:
            write_json(options.output, report(rows, options))
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, metavar="INPUT", help="the clip before deblurring")
    parser.add_argument("outputs", type=Path, nargs="+", metavar="OUTPUT_CLIP", help="what became of it")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the table as JSON, written or replaced")
    parser.add_argument("--track", action="store_true", help="look first where the hand of the frame before was")
    parser.add_argument("--confidence", type=float, default=0.5, help="least of a detection, as MediaPipe has it: 0.5")
    return parser


# ------------------------------------------------------------------------------------------------------------ counting


def count(clip: Path, frames: Iterable[np.ndarray], detect: Detector) -> Row:
    """Looks for hands in every frame; UserError when there is none."""
    surest = []
    for frame in tqdm(frames, desc=clip.name, unit="frame", leave=False, dynamic_ncols=True):
        surest.append(max(detect(frame), default=None))
    found = [x for x in surest if x is not None]
    if not surest:
        raise UserError(f"{clip}: holds no picture that can be decoded")
    mean = float(np.mean(found)) if found else None
    return Row(str(clip), len(surest), len(found), len(found) / len(surest), mean)


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, a line for each clip."""
    lines = [["clip", "frames", "frames with a hand", "detection rate", "mean confidence"]]
    lines.append(["---", *["---:"] * 4])
    for row in rows:
        mean = "" if row.mean_confidence is None else f"{row.mean_confidence:.3f}"
        lines.append([row.clip, str(row.frames), str(row.frames_with_hand), f"{row.detection_rate:.1%}", mean])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(rows: Sequence[Row], options: argparse.Namespace) -> dict:
    """The rows, and what they were found with."""
    settings = {"mediapipe": version("mediapipe"), "confidence": options.confidence, "track": options.track}
    return {"clips": [asdict(row) for row in rows], **settings}


def frames(clip: Path) -> Iterator[np.ndarray]:
    """The frames of a clip as they are seen, uint8 (h, w, 3); UserError when it is no video or broken."""
    try:
        with clips.opened(clip) as container, clips.named(clip, "no video, or broken"):
            packets = clips.packets(container, clips.pictures(clip, container))
            for frame in (frame for packet in packets for frame in packet.decode()):
                yield clips.turning(frame).upright(frame.to_ndarray(format="rgb24"))
    except clips.VideoError as error:
        raise UserError(error) from error


# ----------------------------------------------------------------------------------------------------------- MediaPipe


def check_package() -> None:
    """UserError when MediaPipe, or the model that older ones of its packages hold, is not installed."""
    if not importlib.util.find_spec("mediapipe"):
        raise UserError(f"MediaPipe is not installed: pip install 'b2b_jax[hands]', or {INSTALL}")
    import mediapipe  # an optional extra

    if not hasattr(mediapipe, "solutions"):
        raise UserError(f"MediaPipe {version('mediapipe')} comes without the model of hands (mp.solutions): {INSTALL}")


@contextlib.contextmanager
def mediapipe_hands(confidence: float, track: bool) -> Iterator[Detector]:
    """MediaPipe's detector of up to two hands, for one clip."""
    from mediapipe import solutions

    settings = {"min_detection_confidence": confidence, "min_tracking_confidence": confidence}
    with solutions.hands.Hands(static_image_mode=not track, max_num_hands=2, **settings) as hands:
        yield lambda frame: [hand.classification[0].score for hand in hands.process(frame).multi_handedness or ()]


if __name__ == "__main__":
    sys.exit(main())
