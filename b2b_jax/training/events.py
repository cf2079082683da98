"""TensorBoard events of a run's log."""

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class Events:
    """TensorBoard events, written at once and by the caller.

    The writers of tensorboardX do so in a thread, which a full disk or a clock that jumps kills; whoever logs then
    waits for it for ever.
    """

    def __init__(self, folder: Path, step: int):
        """Events of later steps than `step`, which an interrupted run left, are hidden in TensorBoard."""
        self._folder, self._step, self._files = folder, step, 0
        self._writer: EventsWriter | None = None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Appends numbers by their names."""
        self._add(step, [summary.scalar(name, value) for name, value in values.items()])

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Appends a picture, uint8 (h, w, 3)."""
        self._add(step, [summary.image(name, picture, dataformats="HWC")])

    def close(self) -> None:
        """Closes the file; what is not on disk by then is lost."""
        with contextlib.suppress(OSError):
            if self._writer:
                self._writer.close()
        self._writer = None

    def _add(self, step: int, summaries: Sequence[Summary]) -> None:
        """Appends events; after an error the next ones go to a new file, as nothing behind half an event is read."""
        try:
            if self._writer is None:
                self._begin(step - 1 if self._files else self._step)
            for one in summaries:
                self._writer.write_event(Event(wall_time=time.time(), step=step, summary=one))
            self._writer.flush()
        except OSError:
            self.close()
            raise

    def _begin(self, step: int) -> None:
        self._files += 1
        self._writer = EventsWriter(str(self._folder / "events"), f".{os.getpid()}.{time.monotonic_ns()}")
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))
