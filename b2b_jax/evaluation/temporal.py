"""How a restored video flickers: what differs between neighbouring frames once their motion is undone.

The warping error E_warp of Lai et al., "Learning blind video temporal consistency", ECCV 2018: the frame before is
moved onto a frame by optical flow, and the two are compared where both see the same. Theirs is the mean square, on the
flow of the unprocessed video by FlowNet2; here it is the mean absolute difference, in grey levels of 255, and the flow
is the truth's, which no blur spoils and which is the same for every row. data/flow.py finds it, and what is occluded.

Frames are numpy (h, w, 3) float32 in [0, 1].
"""

import importlib.util
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from b2b_jax.data.flow import SMALLEST, Motion, motion
from b2b_jax.data.sources import Source
from b2b_jax.errors import UserError

NAME = "temporal"  # of the metric
NOTE = (
    "lower is steadier; mean |frame - frame before it, moved by the truth's optical flow (DIS)| where both see the "
    "same, in grey levels; blur alone lowers it"
)
# Test sets whose photos are frames: the published ones, and those whose owner may have named frames so.
VIDEOS = ("gopro", "reds", "rb2v_street", "curated", "original", "test")
NUMBER = re.compile(r"(.*?)(\d+)(?:\.[^./]*)?", re.DOTALL)  # what stands before the last number of a name, and that


def check(dataset: str, source: Source) -> None:
    """UserError when the metric cannot be computed: OpenCV is missing, or nothing in the test set follows another."""
    if not importlib.util.find_spec("cv2"):
        raise UserError(f"evaluation.metrics names {NAME!r}, which needs OpenCV: pip install opencv-python-headless")
    if dataset not in VIDEOS:
        raise UserError(
            f"evaluation.metrics names {NAME!r}, which compares frames of videos, but the test photos are those of "
            f"{dataset}; leave it out, or score {', '.join(VIDEOS[:3])} or videos' frames of your own"
        )
    names = (source.size(index)[0] for index in range(len(source)))
    last = next(names)
    if not any(follows(name, last) or (last := name) is None for name in names):
        raise UserError(
            f"evaluation.metrics names {NAME!r}, but no test photo follows another, such as {last}; wanted frames in a "
            "folder for each video, numbered one by one: 0007.png, 0008.png"
        )


def follows(name: str, before: str) -> bool:
    """True for clip/0008.png after clip/0007.png: the same up to the last number, and that is one higher."""
    found = [NUMBER.fullmatch(one) for one in (name, before)]
    if not all(found):
        return False
    (start, number), (other, last) = (match.groups() for match in found)
    return start == other and int(number) == int(last) + 1


def needed(new: Sequence[bool], names: Sequence[Sequence[str]]) -> list[bool]:
    """Which batches are to run, given which are new and the names in each.

    Of those that are not it is the batch before a new one that goes on with its video: its last frame is needed.
    """
    again = [
        goes_on and follows(after[0], before[-1])
        for goes_on, (before, after) in zip(new[1:], pairwise(names), strict=True)
    ]
    return [is_new or repeat for is_new, repeat in zip(new, [*again, False], strict=True)]


def difference(frame: np.ndarray, before: np.ndarray, moved: Motion) -> float:
    """Mean |frame - moved frame before it| over what both see, in grey levels; NaN when that is nothing."""
    import cv2

    if not moved.seen.any():
        return float("nan")
    warped = cv2.remap(before, moved.x, moved.y, cv2.INTER_LINEAR)
    return 255 * float(np.abs(frame - warped)[moved.seen].mean(dtype=np.float64))


class Neighbours:
    """Compares the frames of a stream of batches each with the one before it.

    The last frame of a batch is kept for the first of the next.
    """

    def __init__(self, dataset: str):
        self._is_video = dataset in VIDEOS
        self._name, self._last = "", {}

    def measure(
        self, names: Sequence[str], results: Mapping[str, np.ndarray], sharp: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Differences of every row's results (n, h, w, 3), (n,); NaN for a frame without one before it."""
        count = len(names)
        frames = {row: np.asarray(x, np.float32)[:count] for row, x in {**results, "": sharp}.items()}  # "": the truth
        found = {row: np.full(count, np.nan) for row in results}
        for i, name in enumerate(names):
            now = {row: x[i] for row, x in frames.items()}
            if self._comparable(name, now[""]):
                moved = motion(now[""], self._last[""])
                for row in results:
                    found[row][i] = difference(now[row], self._last[row], moved)
            self._name, self._last = name, now
        self._last = {row: frame.copy() for row, frame in self._last.items()}  # lets go of the batch
        return found

    def _comparable(self, name: str, truth: np.ndarray) -> bool:
        known = self._is_video and follows(name, self._name) and min(truth.shape[:2]) >= SMALLEST
        return known and self._last[""].shape == truth.shape
