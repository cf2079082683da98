"""The count of hands in clips: rates, means, the table, and what is said when MediaPipe or a clip is missing."""

import contextlib
import importlib.util
import json
import sys
import types

import numpy as np
import pytest
from helpers.videos import make, pictures

from tools import hands


@pytest.fixture
def fake(monkeypatch):
    """A detector that is as sure of a hand as a frame is bright, and sees none in dark ones."""
    opened = []

    @contextlib.contextmanager
    def detector(confidence, track):
        opened.append((confidence, track))
        yield lambda frame: [level / 2, level] if (level := frame.mean() / 255) >= confidence else []

    monkeypatch.setattr(hands, "mediapipe_hands", detector)
    monkeypatch.setattr(hands, "check_package", lambda: None)
    monkeypatch.setattr(hands, "version", lambda name: "0.10.21")
    return opened


def clip(path, *levels, turn=None):
    frames = [np.full((48, 64, 3), level, np.uint8) for level in levels]
    return make(path, frames, range(0, 1001 * len(frames), 1001), sound=None, turn=turn)


def test_rate_and_mean_are_those_of_the_surest_hand_of_every_frame(fake, tmp_path, capsys):
    paths = [clip(tmp_path / "before.mp4", 10, 204, 20, 10), clip(tmp_path / "after.mp4", 10, 204, 153, 229)]
    none = clip(tmp_path / "none.mp4", 0, 50)
    out = tmp_path / "new" / "hands.json"
    assert hands.main([*map(str, [*paths, none]), "--output", str(out)]) == 0
    lines = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()]
    assert [len(line) for line in lines] == [5] * 5
    table = [[cell.strip() for cell in line] for line in lines]
    assert table[0] == ["clip", "frames", "frames with a hand", "detection rate", "mean confidence"]
    assert [line[1:4] for line in table[2:]] == [["4", "1", "25.0%"], ["4", "3", "75.0%"], ["2", "0", "0.0%"]]
    means = [float(table[2][4]), float(table[3][4])]
    np.testing.assert_allclose(means, [0.8, (0.8 + 0.6 + 0.9) / 3], atol=0.01)
    assert table[4][0] == str(none) and table[4][4] == ""
    found = json.loads(out.read_text())
    assert found["clips"][2] == {
        "clip": str(none),
        "frames": 2,
        "frames_with_hand": 0,
        "detection_rate": 0.0,
        "mean_confidence": None,
    }
    assert found["clips"][1]["detection_rate"] == 0.75 and found["mediapipe"] == "0.10.21"


def test_every_clip_has_a_detector_of_its_own_with_the_given_settings(fake, tmp_path):
    paths = [str(clip(tmp_path / f"{i}.mp4", 204)) for i in range(2)]
    assert hands.main([*paths, "--track", "--confidence", "0.3"]) == 0 and fake == [(0.3, True)] * 2


@pytest.mark.parametrize("turn", [None, (90,), (-90,), (180,)])
def test_frames_are_as_they_are_seen(tmp_path, turn):
    upright = pictures()[0]
    turns = 0 if turn is None else turn[0] // 90
    stored = np.ascontiguousarray(np.rot90(upright, -turns))
    found = list(hands.frames(make(tmp_path / "a.mp4", [stored] * 3, [0, 1001, 2002], sound=None, turn=turn)))
    assert len(found) == 3 and found[0].shape == upright.shape and found[0].flags["C_CONTIGUOUS"]
    assert np.abs(found[0].astype(int) - upright).mean() < 3


def failed(capsys, *arguments) -> str:
    """The one line of errors of a call that ends with exit code 2."""
    assert hands.main([*map(str, arguments)]) == 2
    printed, errors = capsys.readouterr()
    lines = [line for line in errors.replace("\r", "\n").splitlines() if line.strip() and "frame/s" not in line]
    assert not printed and len(lines) == 1
    return lines[0]


def test_clips_that_cannot_be_used_are_named(fake, tmp_path, capsys):
    good = clip(tmp_path / "a.mp4", 204)
    assert failed(capsys, good, tmp_path / "none.mp4") == f"{tmp_path / 'none.mp4'}: no such file"
    (tmp_path / "text.mp4").write_text("text")
    assert failed(capsys, good, tmp_path / "text.mp4").startswith(
        f"{tmp_path / 'text.mp4'}: no video, truncated or broken ("
    )


def test_without_mediapipe(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = failed(capsys, tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert line.startswith("MediaPipe is not installed: pip install 'b2b_jax[hands]'")


def test_with_a_mediapipe_that_lacks_the_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "mediapipe", types.ModuleType("mediapipe"))
    monkeypatch.setattr(hands, "version", lambda name: "1.2.2")
    line = failed(capsys, tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert line.startswith("MediaPipe 1.2.2 comes without the model of hands") and "'mediapipe<0.10.30'" in line


def test_mediapipe_itself_finds_no_hand_in_a_plain_wall(tmp_path, capsys):
    pytest.importorskip("mediapipe", reason="pip install 'b2b_jax[hands]'")
    wall = clip(tmp_path / "wall.mp4", 90, 90)
    assert hands.main([str(wall), str(wall)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"| {wall} | 2 | 0 | 0.0% |  |"
