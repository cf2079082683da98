"""Generated scenes: the same everywhere, and with the statistics of photographs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.processes import wait_for_file

from b2b_jax.data import dead_leaves, scenes


@pytest.fixture(scope="module")
def family():
    """Forty scenes of 96 px."""
    return scenes.generate(seed=7, count=40, size=96, workers=1, progress=False)


def luminance(images):
    """(n, h, w) in [0, 1]."""
    return images.mean(-1) / 255


def test_a_scene_is_uint8_rgb_of_the_size_asked():
    for size in (16, 37, 160):
        drawn = dead_leaves.scene(0, 0, size)
        assert drawn.shape == (size, size, 3) and drawn.dtype == np.uint8 and drawn.std() > 5


def test_generate_equals_scene_for_every_number_of_workers(family):
    for index in (0, 9, 39):
        assert (family[index] == dead_leaves.scene(7, index, 96)).all()
    spread = scenes.generate(seed=7, count=30, size=96, workers=3, progress=False, first=3)
    assert (spread == family[3:33]).all()


def test_workers_load_neither_jax_nor_the_main_module(tmp_path):
    """A script without a main guard draws in processes, runs once, and none of its imports is jax.

    Nor is a file beside it that happens to be named as one that Python itself looks for at its start.
    """
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(3)\n")
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import sys; print('started')\n"
        "from b2b_jax.data.scenes import generate\n"
        "print(generate(1, 9, 16, workers=2, progress=False).shape, 'jax' in sys.modules)\n"
    )
    root = Path(__file__).parents[1]
    ran = subprocess.run([sys.executable, script], env={"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert ran.stdout.splitlines() == ["started", "(9, 16, 16, 3) False"], ran.stderr


def test_a_dead_worker_is_an_error(monkeypatch):
    def start(*arguments):
        return subprocess.Popen([sys.executable, "-c", "print('short')"], stdout=subprocess.PIPE)

    monkeypatch.setattr(scenes, "_start_worker", start)
    with pytest.raises(RuntimeError, match="died at scene 5 of seed 3"):
        scenes.generate(seed=3, count=16, size=16, workers=2, progress=False, first=5)


def test_ctrl_c_while_scenes_are_drawn_is_one_line(tmp_path):
    """The terminal tells the whole group of it; stderr closes only when the workers have ended, too."""
    program = (
        "import pathlib, sys\n"
        "import numpy as np\n"
        "from b2b_jax.data import scenes\n"
        "from b2b_jax.training import signals\n"
        "blocks = [range(start, start + 8) for start in range(0, 40_000, 8)]\n"
        "drawn = scenes._filled_by_workers(np.empty((40_000, 32, 32, 3), np.uint8), blocks, 0, 0, 2)\n"
        "with signals.watch(signals.leave):\n"
        "    next(drawn), pathlib.Path(sys.argv[1]).touch(), list(drawn)\n"
    )
    command, ready = [sys.executable, "-c", program, tmp_path / "ready"], tmp_path / "ready"
    options = {"cwd": Path(__file__).parents[1], "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **options, start_new_session=True)
    wait_for_file(ready, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[1].strip() == "Stopped by SIGINT." and process.returncode == 130


def test_seeds_and_indices_are_disjoint(family):
    others = [dead_leaves.scene(8, index, 96) for index in range(3)]
    everything = [*family, *others]
    assert len({image.tobytes() for image in everything}) == len(everything)


def test_leaves_have_the_density_of_the_inverse_square():
    """P(r > x) = (1/x - 1/110) / (1/3 - 1/110) for the density r^-2 on 3..110."""
    radii = dead_leaves._radii(np.random.default_rng(0), 200_000, 3, 110)
    assert radii.min() >= 3 and radii.max() <= 110
    for x in (4, 6, 12, 40):
        assert np.mean(radii > x) == pytest.approx((1 / x - 1 / 110) / (1 / 3 - 1 / 110), abs=0.005)


def test_outlines_stay_within_the_unit_disc_and_reach_its_border():
    reach = abs(dead_leaves._outlines(np.random.default_rng(0), 2000)).max(1)
    assert reach.max() <= 1 + 1e-9 and reach.min() > 0.2 and np.median(reach) > 0.85


def test_brightness_ranges_over_scenes(family):
    means = luminance(family).mean((1, 2))
    assert 0.15 < means.min() < 0.42 and 0.55 < means.max() < 0.9  # measured .29 to .74
    assert 0.4 < means.mean() < 0.6


def test_chroma_is_mostly_weak(family):
    chroma = family.max(-1).astype(float) - family.min(-1)
    assert 8 < np.median(chroma) < 40 and np.mean(chroma > 100) < 0.12


def test_gradients_have_heavy_tails(family):
    """A normal distribution has the kurtosis 3, photographs 10 to 50."""
    gradients = np.diff(luminance(family), axis=2)
    kurtosis = np.mean(gradients**4) / np.mean(gradients**2) ** 2
    assert 10 < kurtosis < 50


def test_the_power_spectrum_falls_as_in_photographs(family):
    """Power ~ f^slope, near -2 in photographs."""
    images = luminance(family)
    size = images.shape[1]
    window = np.outer(np.hanning(size), np.hanning(size))
    centred = images - images.mean((1, 2), keepdims=True)
    power = np.mean(np.abs(np.fft.fft2(centred * window)) ** 2, 0)
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(size, 1 / size)] * 2))
    rings = np.arange(4, 38)
    radial = [power[(frequency >= ring) & (frequency < ring + 1)].mean() for ring in rings]
    slope = np.polyfit(np.log(rings + 0.5), np.log(radial), 1)[0]
    assert -3.2 < slope < -1.5


def test_cached_draws_once_and_again_for_other_parameters(tmp_path, monkeypatch):
    calls = []
    generate = scenes.generate
    monkeypatch.setattr(scenes, "generate", lambda *args: calls.append(args) or generate(*args))
    path = tmp_path / "new" / "scenes.npy"
    ask = {"seed": 1, "count": 3, "size": 16, "progress": False}
    drawn = scenes.cached(path, **ask)
    assert isinstance(drawn, np.memmap) and (drawn == generate(**ask)).all()
    assert (scenes.cached(path, **ask) == drawn).all() and len(calls) == 1
    assert (scenes.cached(path, **ask | {"first": 1})[:2] == drawn[1:]).all() and len(calls) == 2
    monkeypatch.setattr(scenes, "VERSION", scenes.VERSION + 1)
    scenes.cached(path, **ask | {"first": 1})
    assert len(calls) == 3
    assert sorted(file.name for file in path.parent.iterdir()) == ["scenes.json", "scenes.npy"]


def test_cached_mends_what_is_broken(tmp_path):
    path = tmp_path / "scenes.npy"
    ask = {"seed": 1, "count": 3, "size": 16, "progress": False}
    drawn = np.array(scenes.cached(path, **ask))
    label = json.loads(path.with_suffix(".json").read_text())
    assert label["seed"] == 1 and label["count"] == 3
    for broken in (path, path.with_suffix(".json")):
        for length in (0, 20):
            with broken.open("rb+") as file:
                file.truncate(length)
            assert (scenes.cached(path, **ask) == drawn).all()
    path.unlink()
    assert (scenes.cached(path, **ask) == drawn).all()


def test_errors_say_what_was_wanted(tmp_path):
    for wrong in ({"seed": -1}, {"index": -1}, {"size": 8}):
        with pytest.raises(ValueError, match="wants seed, index >= 0 and size >= 16"):
            dead_leaves.scene(**{"seed": 0, "index": 0, "size": 16} | wrong)
    with pytest.raises(ValueError, match="size >= 16"):
        scenes.generate(0, 100, 8, progress=False)
    with pytest.raises(ValueError, match=r"ends in \.npy"):
        scenes.cached(tmp_path / "scenes.png", 0, 1)
