"""Reading kernels from photos: the stage on two small folders, what it then teaches, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from b2b_jax import images
from b2b_jax.data import blur
from b2b_jax.errors import UserError
from b2b_jax.stages import STAGES, kernel_field, kernel_reader
from b2b_jax.stages.run import Run
from configs import default

SIDE = 64


@pytest.fixture
def run(tmp_path) -> Run:
    """A camera of two horizontal copies, ten photos in each pile, small networks."""
    rng = np.random.default_rng(0)
    sharp = [blur.apply(rng.random((SIDE, SIDE, 3)), blur.gaussian_kernel(0.6, 5)) for _ in range(20)]
    kernel = blur.splat(blur.line(5.0, 2, 0.0), 9)
    for i, photo in enumerate(sharp):
        pile, taken = ("unknown_blur", blur.apply(photo, kernel)) if i < 10 else ("unknown_sharp", photo)
        images.write(tmp_path / pile / f"{i}.png", blur.round8(taken))
    config = default.get_config()
    piles = {name: str(tmp_path / name) for name in ("unknown_blur", "unknown_sharp")}
    config.data.update(unknown="", **piles)
    config.kernel_reader.network.update(size=9, lags=6, width=48, window=32)
    copies = {"kind": "copies", "copies": 2, "angle": (0.0, 180.0), "extent": (2.0, 6.0), "size": 9}
    config.kernel_reader.family = ConfigDict({"copies": copies})
    config.kernel_reader.update(steps=120, batch=16, lessons=64)
    config.kernel_reader.optimizer.update(learning_rate=5e-3, warmup=5)
    config.kernel_field.update(enabled=True, teacher="photos")
    config.loop.update(evaluate_every=60, checkpoint_every=120, log_every=60)
    return Run(config, tmp_path / "run")


def test_the_camera_is_read_from_its_photos(run):
    assert kernel_reader.needed(run) and not STAGES["kernel_reader"].given(run)
    kernel_reader.check(run)
    kernel_reader.fit(run, lambda: None)
    found = kernel_reader.read(run)
    assert found.shape == (10, 9, 9)
    np.testing.assert_allclose(found.sum((1, 2)), 1, rtol=1e-5)
    np.testing.assert_array_equal(found, found[:, ::-1, ::-1])
    truth = blur.splat(blur.line(5.0, 2, 0.0), 9)
    upright = truth.T
    distances = [0.5 * np.abs(found.mean(0) - kernel).sum() for kernel in (truth, upright)]
    assert distances[0] < 0.5 < distances[1]
    assert images.read(run.workdir / "kernel_reader" / "kernels.png").shape == (88, 8 * 88, 3)
    shots = kernel_field.open_shots(run)  # what the kernel field is taught with
    np.testing.assert_array_equal(shots.shot.kernel, found)
    assert shots.reach == kernel_field.REACHES["photos"](run) == 4


def test_what_is_taught_is_symmetric():
    kernels = jax.random.uniform(jax.random.key(0), (3, 5, 5))
    both = kernel_reader.mirrored(kernels)
    np.testing.assert_array_equal(both, both[:, ::-1, ::-1])
    np.testing.assert_allclose(both.sum((1, 2)), kernels.sum((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(kernel_reader.mirrored(both), both)
    assert jnp.all(both[:, 2, 2] == kernels[:, 2, 2])


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("network", {"size": 11}, "network.size is 11; wanted kernels of 9 pixels"),
        ("network", {"window": 60}, "kernel_reader.network.window"),
        ("family", {"copies": {"kind": "copy"}}, r"kernel_reader\.family\.copies: .*'copies'"),
    ],
)
def test_it_is_refused(run, section, change, said):
    with run.config.unlocked():
        for key, value in change.items():
            run.config.kernel_reader[section][key] = value
    with pytest.raises(UserError, match=said):
        kernel_reader.check(run)


def test_a_kernel_field_with_another_teacher_needs_none(run):
    run.config.kernel_field.teacher = "camera"
    assert not kernel_reader.needed(run)
