"""Pairs of a learnt camera for other tools: what they are, of which run, and what is refused."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from helpers import jit
from helpers.processes import fresh_flags
from skimage import data

from b2b_jax import images, networks, synthesize
from b2b_jax.files import write_json
from b2b_jax.models import jpeg
from b2b_jax.models.bank import hyper_of, listed
from b2b_jax.models.camera import Shot
from b2b_jax.settings import as_json
from configs import demo

QUALITY = 30
PHOTO = data.astronaut()[100:140, 100:148]


@pytest.fixture
def run(tmp_path):
    """The folder of a run, read anew by each command, whose camera blurs nothing and compresses much."""
    config, workdir = demo.get_config("quick"), tmp_path / "run"
    for pile in ("unknown_blur", "unknown_sharp"):
        images.write(tmp_path / pile / "0.png", PHOTO)
        config.data[pile] = str(tmp_path / pile)
    config.camera.learner = "likelihood"
    config.camera.network.update(size=3, sharpening=False, noise=False)
    kernel = jnp.zeros((1, 3, 3)).at[0, 1, 1].set(1.0)
    shot = Shot(kernel, None, None, None, None, quality=jnp.float32(QUALITY))
    networks.export(workdir, "camera", hyper_of(config.camera.network, 1, jpeg=True), listed(shot, jnp.ones(1)))
    write_json(workdir / "config.json", as_json(config))
    write_json(workdir / "camera" / "scores.json", {"usable": True, "reasons": []})
    return workdir


@pytest.fixture
def synthesized(monkeypatch, capsys, run):
    """Runs the command; returns its exit code and what it said of mistakes."""

    def call(*arguments):
        fresh_flags()
        words = {"what": "camera", "count": 1, "workdir": run, "output": run.parent / "pairs"}
        options = [f"--{name}={value}" for name, value in words.items()]
        monkeypatch.setattr(sys, "argv", ["synthesize", *options, *arguments])
        code = synthesize.command()
        return code, [line for line in capsys.readouterr().err.splitlines() if line and "%|" not in line]

    yield call
    flags.FLAGS.unparse_flags()


def test_pairs_are_those_of_the_run_and_have_its_jpeg(run, synthesized):
    assert synthesized() == (0, [])
    blurry, sharp = (images.read(run.parent / f"pairs/test/camera/{kind}/000000.png") for kind in ("blur", "sharp"))
    np.testing.assert_array_equal(sharp, PHOTO)
    wanted = jit(jpeg.compressed)(PHOTO[None] / np.float32(255), jnp.float32(QUALITY))[0]
    np.testing.assert_allclose(blurry, 255 * jax.device_get(wanted), atol=1)
    assert np.abs(blurry.astype(int) - sharp).mean() > 2
    (shot,) = json.loads((run.parent / "pairs" / "camera.json").read_text())["shots"].values()
    assert shot["quality"] == QUALITY


def test_a_camera_that_the_run_did_not_use_is_said_to_be_such(run, synthesized):
    write_json(run / "camera" / "scores.json", {"usable": False, "reasons": ["no blur was found"]})
    code, lines = synthesized()
    assert code == 0 and lines == ["note: the run itself did not use this camera: no blur was found"]


def test_another_configuration_than_the_runs_is_refused(run, synthesized):
    folder = f"--config.data.unknown_sharp={run.parent / 'unknown_sharp'}"
    code, (line,) = synthesized("--config=configs/camera.py", folder, folder.replace("sharp", "blur"))
    assert code == 2 and "camera.network.size: 3 → 31" in line and line.endswith("the run's own is used")


def test_a_run_of_an_older_version_or_none_is_refused(run, synthesized):
    config = json.loads((run / "config.json").read_text())
    del config["camera"]["threshold"], config["data"]["share"], config["camera"]["bank"]["sharpening"]["window"]
    write_json(run / "config.json", config)
    code, (line,) = synthesized()
    missing = "camera.threshold, camera.bank.sharpening.window, data.share"
    assert code == 2 and f"did not have {missing}; give the configuration" in line
    code, (line,) = synthesized(f"--workdir={run.parent}")
    assert code == 2 and line.startswith(f"{run.parent} is no run's folder")


def test_a_folder_that_a_stopped_command_left_is_to_be_removed(run, synthesized):
    images.write(run.parent / "pairs" / "train" / "0.png", PHOTO)
    code, (line,) = synthesized()
    assert code == 2 and "remove it if a stopped run of this command left it" in line


def test_a_place_that_cannot_be_written_is_one_line_before_anything_is_made(synthesized, monkeypatch):
    monkeypatch.setattr(synthesize.camera_dataset, "photograph", pytest.fail)
    code, (line,) = synthesized("--output=/proc/none")
    assert code == 2 and line.startswith("/proc/none cannot be used: ")


def test_the_runs_relative_paths_begin_where_it_was_started(run, synthesized, monkeypatch):
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"unknown_blur": "unknown_blur", "unknown_sharp": "unknown_sharp"}
    config["data"] |= {"test_blur": "test", "test_sharp": "test"}
    images.write(run.parent / "test" / "0.png", PHOTO[::-1])
    write_json(run / "config.json", config | {"started_in": str(run.parent)})
    elsewhere = run.parent / "elsewhere"
    images.write(elsewhere / "unknown_blur" / "0.png", PHOTO)
    images.write(elsewhere / "unknown_sharp" / "0.png", 255 - PHOTO)
    monkeypatch.chdir(elsewhere)
    assert synthesized() == (0, [])
    np.testing.assert_array_equal(images.read(run.parent / "pairs/test/camera/sharp/000000.png"), PHOTO)


def test_without_a_run_or_a_configuration_it_says_so(run, synthesized):
    assert synthesized("--workdir=") == (2, ["No configuration: give --workdir or --config"])
