"""The Python face: a run's folder or a file, photos of any kind in, sharp photos of the same kind out."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import jit
from helpers.networks import images, random_variables

import b2b_jax
from b2b_jax import list_models, models, system, weights
from b2b_jax.evaluation import rows
from b2b_jax.networks import apply

HYPER = {"width": 4, "encoders": [1], "middle": 1, "decoders": [1]}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "nafnet.safetensors"
    variables = random_variables(models.create("nafnet", **HYPER), images(1, 32, 32, 3))
    weights.save(path, "nafnet", HYPER, variables)
    return path


@pytest.fixture(scope="module")
def deblurrer(file):
    return b2b_jax.load(file)


PHOTO = np.linspace(0, 1, 21 * 30 * 3, dtype=np.float32).reshape(21, 30, 3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "float32", "float64", "float16"])
def test_a_photo_of_every_dtype_keeps_its_dtype_and_its_values(deblurrer, file, dtype):
    top = np.iinfo(dtype).max if "u" in dtype else 1
    photo = (PHOTO * top).astype(dtype)
    sharp = deblurrer(photo)
    assert sharp.shape == photo.shape and sharp.dtype == photo.dtype.newbyteorder("=")
    module, variables = weights.load(file)
    given = (photo / np.float64(top)).astype(np.float32)
    wanted = jit(lambda x: apply(module.clone(local=True, train_size=256), variables, x))(given[None])[0]
    np.testing.assert_allclose(sharp / np.float64(top), wanted, atol=max(0.51 / top if top > 1 else 0, 2e-3))


def test_several_photos_are_restored_as_each_alone(deblurrer):
    photos = np.stack([PHOTO, PHOTO[::-1]])
    np.testing.assert_allclose(deblurrer(photos)[1], deblurrer(photos[1]), atol=1e-5)
    assert deblurrer(photos[:0]).shape == (0, 21, 30, 3)


@pytest.mark.parametrize(
    "photos, error, message",
    [
        (np.zeros((5, 5)), ValueError, r"shape \(5, 5\); wanted"),
        (np.zeros((5, 5, 4)), ValueError, "wanted"),
        (np.zeros((0, 5, 3)), ValueError, "wanted"),
        (np.zeros((5, 5, 3), np.int32), TypeError, "int32"),
        (np.full((5, 5, 3), 255.0), ValueError, r"\[0, 1\]; these go from 255"),
        (np.full((5, 5, 3), np.nan), ValueError, r"\[0, 1\]"),
    ],
)
def test_what_is_no_photo_is_refused(deblurrer, photos, error, message):
    with pytest.raises(error, match=message):
        deblurrer(photos)


def test_what_holds_no_deblurrer_is_told_in_one_line(file, tmp_path):
    wrong = {
        "no run's folder": (tmp_path, {}),
        "No weights at": (tmp_path / "no.safetensors", {}),
        "is no run's folder": (file, {"method": "adapted"}),
        "cannot overlap": (file, {"tile": 8}),
        "dtype is 'int8'; it can be auto, float32, bfloat16": (file, {"dtype": "int8"}),
    }
    for message, (path, options) in wrong.items():
        with pytest.raises(b2b_jax.UserError, match=message) as caught:
            b2b_jax.load(path, **options)
        assert "\n" not in str(caught.value)


def test_importing_the_package_starts_nothing():
    code = "import sys, b2b_jax; print(sorted(m for m in ('jax', 'flax', 'av', 'orbax') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert set(b2b_jax.__all__) <= set(dir(b2b_jax))
    assert inspect.signature(system.load).parameters.keys() >= {"path", "method", "tile", "overlap", "dtype"}


def test_what_scores_best_can_be_used():
    assert rows.SYSTEMS == system.METHODS and set(rows.SYSTEMS) < set(rows.ROWS)


@pytest.mark.parametrize(
    ("measured", "adapted", "method", "files"),
    [
        ("", False, "", ("translator", "deblurrer")),
        ("", True, "", (None, "adaptation")),
        ("blur2blur", True, "", ("translator", "deblurrer")),
        ("adapted", True, "deblurrer", (None, "deblurrer")),
        ("deblurrer", True, "adapted", (None, "adaptation")),
        ("kernel_field", True, "", ("kernel_field", "deblurrer")),
        ("", False, "", ("kernel_field", "deblurrer")),
    ],
)
def test_a_run_is_used_as_measured_best_or_as_asked(file, tmp_path, measured, adapted, method, files):
    sections = {"deblurrer": {"network": {"name": "nafnet", **HYPER}}, "translator": {}}
    (tmp_path / "config.json").write_text(json.dumps(sections))
    (tmp_path / "results.json").write_text(json.dumps({"method": measured or None}))
    for stage in (["adaptation"] if adapted else []) + (["kernel_field"] if "kernel_field" in files else []):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "weights.safetensors").write_bytes(file.read_bytes())
    chosen = system.from_run(tmp_path, method)
    assert tuple(path and path.parent.name for path in chosen[:2]) == files


@pytest.mark.parametrize(
    ("stages", "begun", "files"),
    [
        (["deblurrer", "adaptation", "report"], False, (None, "deblurrer")),
        (["deblurrer,translator"], False, ("translator", "deblurrer")),  # which is missing, and asked for
        (["report"], True, ("translator", "deblurrer")),
    ],
)
def test_a_run_without_translator_has_its_deblurrer(tmp_path, stages, begun, files):
    sections = {"deblurrer": {"network": {"name": "nafnet", **HYPER}}, "translator": {}, "stages": stages}
    (tmp_path / "config.json").write_text(json.dumps(sections))
    if begun:
        (tmp_path / "translator").mkdir()
    chosen = system.from_run(tmp_path)
    assert tuple(path and path.parent.name for path in chosen[:2]) == files


@pytest.mark.parametrize(
    ("own", "local"),
    [
        ({}, True),
        ({"local": False}, True),  # converted by an older version, which wrote what no tensor says
        ({"local": False, "train_size": 256}, False),
        ({"local": True, "train_size": 256}, True),
    ],
)
def test_a_file_alone_has_the_means_that_it_was_trained_with(file, tmp_path, own, local):
    _, variables = weights.load(file)
    weights.save(tmp_path / "a.safetensors", "nafnet", HYPER | own, variables)
    assert b2b_jax.load(tmp_path / "a.safetensors").chain[0].module.local is local


def test_given_weights_are_found_from_another_folder(file, tmp_path, monkeypatch):
    began, run = tmp_path / "began", tmp_path / "began/runs/mine"
    run.mkdir(parents=True)
    (began / "given.safetensors").write_bytes(file.read_bytes())
    config = {"deblurrer": {"weights": "given.safetensors", "network": {"name": "nafnet"}}, "translator": {}}
    (run / "config.json").write_text(json.dumps(config | {"started_in": str(began)}))
    monkeypatch.chdir(tmp_path)
    assert system.from_run(run).deblurrer == began / "given.safetensors"
    assert list(list_models.runs(began / "runs")) == [(run, "a run with deblurrer")]
    moved = began.rename(tmp_path / "moved")
    monkeypatch.chdir(moved)
    assert system.from_run(moved / "runs/mine").deblurrer == Path("given.safetensors")


@pytest.mark.parametrize("stage", ["adaptation", "kernel_field", "translator", "deblurrer"])
@pytest.mark.parametrize("section", [[], 3, None, {"weights": 3}])
def test_a_damaged_section_of_a_configuration_is_a_line(tmp_path, stage, section):
    sections = {"deblurrer": {"network": {"name": "nafnet", **HYPER}}, "translator": {}} | {stage: section}
    (tmp_path / "config.json").write_text(json.dumps(sections))
    with pytest.raises(b2b_jax.UserError, match=r"config\.json is damaged"):
        system.from_run(tmp_path)
