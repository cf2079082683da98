"""The log of a stage: TensorBoard's events, and a disk or a clock that fails."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from b2b_jax.training import log
from b2b_jax.training.log import Log

ROOT = Path(__file__).parents[1]
VALUES = {"loss": 1.0, "seconds": 1.0, "productive": 1.0}


def events(folder: Path) -> list[Event]:
    """All events in a folder, read as TensorBoard does: length, its checksum, the event, its checksum."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda path: int(path.name.rsplit(".", 1)[-1])):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def test_events_are_on_disk_at_once_and_hide_those_of_lost_steps(tmp_path):
    first = Log(tmp_path, 0)
    first.scalars(1, VALUES)
    first.samples(2, {"blurry": np.zeros((1, 4, 4, 3), np.float32)}, 1)
    found = events(tmp_path)
    assert [(e.step, [v.tag for v in e.summary.value]) for e in found[2:]] == [
        *((1, [name]) for name in VALUES),
        (2, ["samples"]),
    ]
    assert found[1].session_log.status == 1 and found[1].step == 1
    second = Log(tmp_path, 1)
    second.scalars(2, VALUES)
    assert [e.step for e in events(tmp_path) if e.session_log.status == 1] == [1, 2]


def test_events_after_a_full_disk_go_to_a_file_that_can_be_read(tmp_path, monkeypatch, capsys):
    it, write = Log(tmp_path, 0), EventsWriter.write_event
    it.scalars(1, VALUES)

    def full(self, event):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(EventsWriter, "write_event", full)
    it.scalars(2, VALUES)
    it.scalars(3, VALUES)
    monkeypatch.setattr(EventsWriter, "write_event", write)
    it.scalars(4, VALUES)
    it.close()
    assert [e.step for e in events(tmp_path) if e.summary.value] == [1] * 3 + [4] * 3
    assert [row["step"] for row in log.read(tmp_path)] == [1, 2, 3, 4]
    assert capsys.readouterr().err.count("has gaps from now on: ") == 1


def test_pictures_of_lost_steps_are_dropped(tmp_path):
    it = Log(tmp_path, 0)
    for step in (500, 1000, 1500):
        it.samples(step, {"blurry": np.full((1, 4, 4, 3), step / 2000, np.float32)}, 1)
    it.close()
    (tmp_path / "samples" / "mine.png").touch()
    Log(tmp_path, 1000).close()
    step, photos = log.read_samples(tmp_path)
    assert step == 1000 and photos["blurry"][0].mean() == 128
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["00000500.png", "00001000.png", "mine.png"]


@pytest.mark.parametrize("now", [-1e9, 0.0, 1e12, 1e300])
def test_a_clock_that_jumps_stops_nothing(tmp_path, monkeypatch, now):
    it = Log(tmp_path, 0)
    monkeypatch.setattr(time, "time", lambda: now)
    for step in range(1, 30):
        it.scalars(step, VALUES)
    it.close()
    assert len(log.read(tmp_path)) == 29


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from b2b_jax.training.log import Log
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
log = Log(Path(sys.argv[1]), 0)
for step in range(1, 500):
    log.scalars(step, {"loss": 1.0, "seconds": 1.0, "productive": 1.0})
    log.names(step, ["a photo"] * 20)
    if step % 50 == 0:
        log.samples(step, {"blurry": np.random.default_rng(0).random((1, 99, 99, 3), np.float32)}, 1)
log.close()
"""


def test_a_log_without_room_does_not_stop_training(tmp_path):
    """By a limit on the size of files, which the system keeps as it does that of a disk."""
    command = [sys.executable, "-c", LIMITED, tmp_path]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0 and "Traceback" not in ran.stderr, ran.stderr
    assert ran.stderr.count("has gaps from now on") == 1
    assert not list((tmp_path / "samples").glob("*.png")) and len(log.read(tmp_path)) > 100


@pytest.mark.parametrize(
    "line", ["3", "[]", '{"loss": 1}', '{"step": "x"}', "\udcff{", '{"step": 2, "loss"', "[" * 9999]
)
def test_damaged_rows_are_left_out(tmp_path, line):
    path = tmp_path / log.METRICS
    rows = ['{"step": 1, "productive": 5}', line, '{"step": 3, "productive": "x"}']
    path.write_text("\n".join(rows) + "\n", errors="surrogateescape")
    assert [row["step"] for row in log.read(tmp_path)] == [1, 3]
    (tmp_path / log.CLOCK).write_text("[1]")
    it = Log(tmp_path, 2)
    assert (it.productive, it.rate, it.seconds) == (5, 0, 0)
    it.scalars(3, VALUES)
    assert [json.loads(row)["step"] for row in path.read_text().splitlines()] == [1, 3]
