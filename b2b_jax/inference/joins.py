"""The clock of transport and program streams, which jumps where recordings were joined: made to run on.

Cameras cut long recordings into files, and people join them end to end. Each part begins at a time of its own. Pictures
say where parts begin; the longer of a part's pictures and sound says when the next one starts. Times are seconds.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import av

GAP = 10.0  # seconds forward that no clock leaves out within a recording (FFmpeg's dts_delta_threshold)
SLACK = 2.0  # seconds that a part's sound may begin before its pictures, or end after them


class Part(NamedTuple):
    """One of the joined recordings, as a stream tells it."""

    start: float
    end: float


def parts(packets: Iterable[av.Packet]) -> dict[int, list[Part]]:
    """The parts of every stream, by its index."""
    found: dict[int, list[Part]] = {}
    lasts: dict[int, tuple[float, float]] = {}
    for packet in packets:
        if packet.dts is None:
            continue
        time, (last, step) = seconds(packet), lasts.get(packet.stream.index, (None, 0.0))
        mine = found.setdefault(packet.stream.index, [])
        if last is None or has_jumped(last, time):
            mine.append(Part(time, time))
        elif time > last:
            step = time - last
        step = float((packet.duration or 0) * packet.time_base) or step
        mine[-1] = mine[-1]._replace(end=max(mine[-1].end, time + step))
        lasts[packet.stream.index] = (time, step)
    return found


def seconds(packet: av.Packet) -> float:
    """When the packet is to be decoded."""
    return float(packet.dts * packet.time_base)


def has_jumped(last: float, time: float) -> bool:
    """True where a stream's clock goes back, or further forward than a recording's does."""
    return time < last or time > last + GAP


class Mender:
    """Moves the packets of a stream of joined parts to where they are shown, one after the other."""

    def __init__(self, found: dict[int, list[Part]], video: int):
        self.parts = found.get(video, [])
        self._offsets = _offsets(self.parts, [_matched(x, self.parts) for x in found.values()])
        self._places: dict[int, tuple[int, float]] = {}  # of each stream: its part, and its last time

    def mend(self, packet: av.Packet) -> None:
        """Changes the packet's times in place."""
        if len(self.parts) < 2 or packet.dts is None:
            return
        time, (part, last) = seconds(packet), self._places.get(packet.stream.index, (0, seconds(packet)))
        if has_jumped(last, time) and part + 1 < len(self.parts) and _fits(time, self.parts[part + 1]):
            part += 1
        self._places[packet.stream.index] = (part, time)
        ticks = round(self._offsets[part] / packet.time_base)
        packet.dts += ticks
        packet.pts = None if packet.pts is None else packet.pts + ticks


def _fits(time: float, part: Part) -> bool:
    return part.start - SLACK <= time <= part.end + SLACK


def _matched(mine: list[Part], video: list[Part]) -> list[Part | None]:
    """For each part of the pictures the one of this stream that belongs to it, in order."""
    left, found = list(mine), []
    for part in video:
        found.append(left.pop(0) if left and _fits(left[0].start, part) else None)
    return found


def _offsets(video: list[Part], streams: list[list[Part | None]]) -> list[float]:
    """Seconds to add to the times of each part, so that it begins where all streams of the one before have ended."""
    offsets = [0.0]
    for number, (before, after) in enumerate(pairwise(video)):
        pairs = [(x[number], x[number + 1]) for x in streams if x[number] and x[number + 1]]
        offsets.append(offsets[-1] + max([before.end - after.start, *(a.end - b.start for a, b in pairs)]))
    return offsets
