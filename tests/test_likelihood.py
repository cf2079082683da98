"""The camera by likelihood: the bank, the reader, the weights, and the stage that puts them together."""

import contextlib
import json
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import jit
from ml_collections import ConfigDict
from scipy import signal

import b2b_jax
from b2b_jax import images, models, networks, system
from b2b_jax.data import blur
from b2b_jax.data.skipping import BadPhotos, Skipping
from b2b_jax.data.sources import ArraySource, Photos
from b2b_jax.errors import UserError
from b2b_jax.evaluation import rows
from b2b_jax.method import camera_model, likelihood
from b2b_jax.method.likelihood import Likelihood
from b2b_jax.models import sharpening
from b2b_jax.models.bank import Bank, listed, shots_of
from b2b_jax.models.camera import HALO, Shot, sharpener, taken
from b2b_jax.models.consistent import STEPS, WAYS
from b2b_jax.models.reader import NOISE_SCALE, Reader, described
from b2b_jax.models.sharpening import KINDS, SharpeningReader
from b2b_jax.stages import (
    adaptation,
    agreement,
    camera,
    camera_figures,
    camera_likelihood,
    camera_noise,
    camera_photos,
    common,
    denoiser,
    kernel_field,
    left_out,
    pairs,
)
from b2b_jax.stages.run import Run
from configs import demo

KEY = jax.random.key(0)
LAGS = 4


def shots(count: int, size: int = 5, seed: int = 0, **parts) -> Shot:
    """Random shots with kernels of `size`."""
    kernels = np.random.default_rng(seed).random((count, size, size))
    kernels = jnp.asarray(kernels / kernels.sum((1, 2), keepdims=True), jnp.float32)
    return Shot(**{"kernel": kernels, "amount": None, "sigma": None, "noise": None, "response": None} | parts)


# ----------------------------------------------------------------------------------------------------------------- bank


def test_a_bank_draws_its_shots_as_often_as_their_weights_say():
    shot = shots(3, noise=jnp.array([0.1, 0.2, 0.3]))
    bank = Bank(count=3, size=5, sharpening=False)
    drawn = bank.apply(listed(shot, jnp.array([0.2, 0.0, 0.6])), jax.random.normal(KEY, (4000, 1)))
    shares = [float(np.mean(np.isclose(drawn.noise, noise))) for noise in (0.1, 0.2, 0.3)]
    np.testing.assert_allclose(shares, [0.25, 0, 0.75], atol=0.03)  # three standard deviations are 0.02
    assert (drawn.kernel[drawn.noise > 0.25] == shot.kernel[2]).all()
    assert drawn.amount is None and drawn.response is None


def test_all_shots_have_the_response_that_is_stated(tmp_path):
    run = tiny_run(tmp_path)
    run.config.camera.network.response, run.config.camera.bank.response = True, 1.8
    bank = camera_likelihood.draw(run, 3, camera_noise.Noise(0.0, 0))
    hyper, variables = camera_likelihood.found(run, bank, np.full(3, 1 / 3))
    networks.export(tmp_path, "camera", hyper, variables)
    module, variables = networks.load(tmp_path / "camera" / "weights.safetensors", jnp.float32)
    drawn = module.apply(variables, jnp.zeros((2, 1)))
    assert drawn.kernel.shape[0] == 2 and drawn.response == np.float32(1.8)


def test_the_largest_number_draws_the_last_shot():
    bank = Bank(count=2, size=5, sharpening=False, noise=False)
    drawn = bank.apply(listed(shots(2), jnp.array([0.5, 0.5])), jnp.array([[-40.0], [40.0]]))
    np.testing.assert_array_equal(drawn.kernel, shots(2).kernel)


def test_a_bank_is_a_camera_to_whatever_makes_pairs(tmp_path):
    shot = shots(2, amount=jnp.array([0.0, 2.0]), sigma=jnp.array([1.0, 1.0]))
    hyper = {"name": "bank", "count": 2, "size": 5, "sharpening": True, "noise": False}
    networks.export(tmp_path, "camera", hyper, listed(shot, jnp.array([0.0, 1.0])))
    module, variables = networks.load(tmp_path / "camera" / "weights.safetensors", jnp.float32)
    side = 16 + 2 * module.reach
    sharp = jnp.asarray(np.random.default_rng(0).random((2, side, side, 3)), jnp.float32)
    blurry, seen = camera_model.pairs(module, variables, sharp, KEY, threshold=0.0)
    assert blurry.shape == seen.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(seen, sharp[:, module.reach : -module.reach, module.reach : -module.reach])
    assert np.abs(np.asarray(blurry) - np.asarray(seen)).mean() > 0.05


# --------------------------------------------------------------------------------------------------------------- reader


def test_a_shot_is_described_by_the_autocorrelation_of_all_that_it_convolves_with():
    shot = shots(2, amount=jnp.array([0.0, 2.0]), sigma=jnp.array([1.0, 1.5]), noise=jnp.array([0.0, 0.02]))
    found = np.asarray(described(shot, LAGS))
    side = 2 * LAGS + 1
    for i in range(2):
        kernel, mask = (np.asarray(x[i], np.float64) for x in (shot.kernel, sharpener(shot.amount, shot.sigma)))
        whole = signal.convolve2d(kernel, mask)
        truth = signal.correlate2d(whole, whole)
        middle = truth.shape[0] // 2
        wanted = truth[middle - LAGS : middle + LAGS + 1, middle - LAGS : middle + LAGS + 1] / truth[middle, middle]
        np.testing.assert_allclose(found[i, :-1].reshape(side, side), wanted, atol=2e-6)
    np.testing.assert_allclose(found[:, -1], [0, 0.02 * NOISE_SCALE], rtol=1e-6)


def test_dropout_and_noise_are_in_training_alone():
    reader = Reader(lags=LAGS, width=8, dim=4, window=16)
    photos, shot = jax.random.uniform(KEY, (3, 16, 16, 3)), shots(2)
    params = jit(reader.init)(KEY, photos, shot)
    twice = [jit(reader.apply)(params, photos, shot) for _ in range(2)]
    np.testing.assert_array_equal(*twice)
    assert twice[0].shape == (3, 2)
    keys = [{"dropout": jax.random.key(i)} for i in range(2)]
    train = [reader.apply(params, photos, shot, train=True, rngs=key, mutable=["batch_stats"])[0] for key in keys]
    assert np.abs(np.asarray(train[0] - train[1])).max() > 1e-3


# --------------------------------------------------------------------------------------------------------------- method


def test_the_oldest_lessons_are_replaced():
    state = SimpleNamespace(step=jnp.int32(0), memory={"features": jnp.zeros((5, 1)), "shots": jnp.zeros(5, jnp.int32)})
    state.replace = lambda memory: SimpleNamespace(step=state.step, memory=memory, replace=state.replace)
    for step in range(3):
        state.step = jnp.int32(step)
        new, filled = likelihood.remembered(state, jnp.full((2, 1), step + 1.0), jnp.full(2, step + 1))
        state.memory = new.memory
        assert filled == min(2 * (step + 1), 5)
    np.testing.assert_array_equal(state.memory["shots"], [3, 1, 2, 2, 3])
    np.testing.assert_array_equal(state.memory["features"][:, 0], [3, 1, 2, 2, 3])


def test_a_shot_that_is_there_twice_is_no_wrong_answer():
    scores = jnp.array([[1.0, 5.0, 0.0], [5.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    rows = [(1.0, [1.0, 0.0]), (1.0, [1.0, 0.0]), (2.0, [0.0, 0.0, 2.0])]
    wanted = np.mean([np.log(np.exp(others).sum()) - right for right, others in rows])
    np.testing.assert_allclose(likelihood.contrast(scores, jnp.array([7, 7, 1])), wanted, rtol=1e-6)


def test_weights_are_those_that_make_all_photos_most_likely():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((40, 6)).astype(np.float32)
    weight = np.full(6, 1 / 6)
    for _ in range(7):
        shares = np.exp(0.5 * scores) * weight
        weight = (shares / shares.sum(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(likelihood.weights(jnp.asarray(scores), 0.5, 7), weight, rtol=1e-5)


def test_weights_find_a_mixture_that_no_photo_shows_for_sure():
    """Photos are numbers about 0, 1 or 2, so noisy that none tells; their kinds are 0.7, 0 and 0.3 of them."""
    rng = np.random.default_rng(1)
    photos = rng.choice([0.0, 2.0], 4000, p=[0.7, 0.3]) + rng.standard_normal(4000)
    scores = -0.5 * np.square(photos[:, None] - [0.0, 1.0, 2.0])
    found = likelihood.weights(jnp.asarray(scores, jnp.float32), 1.0, 2000)
    np.testing.assert_allclose(found, [0.7, 0, 0.3], atol=0.05)


def test_a_step_teaches_the_reader_to_tell_shots():
    """Two kernels, along and across: after some steps the reader tells which one blurred photos that it never saw."""
    line = np.zeros((2, 9, 9), np.float32)
    line[0, 4, 1:8] = line[1, 1:8, 4] = 1 / 7
    bank = Shot(jnp.asarray(line), None, None, None, None)
    config = ConfigDict({"kept": 64, "batch": 16})
    reader = Reader(lags=LAGS, width=32, dim=8, dropout=0.1, window=32)
    method = Likelihood(reader, None, {"reader": optax.adam(3e-3)}, config)
    state = jit(lambda key: likelihood.init(method, bank, key))(KEY)
    rng, step = np.random.default_rng(0), jit(likelihood.make_step(method))
    for _ in range(40):
        batch = {"unknown_sharp": rng.integers(0, 256, (4, 40, 40, 3), np.uint8)}
        state, metrics = step(state, {"bank": bank}, batch, KEY)
    new = jnp.asarray(rng.random((16, 40, 40, 3)), jnp.float32)
    photos, numbers = jit(lambda x, key: likelihood.lessons(bank, x, key))(new, KEY)
    features = reader.apply({}, photos, method="features")
    scores = reader.apply(state.params["reader"], features, bank, method="scores")
    assert set(np.asarray(numbers)) == {0, 1} and np.isfinite(metrics["loss"])
    np.testing.assert_array_equal(scores.argmax(1), numbers)


def test_windows_are_cut_anywhere_in_their_photos():
    photos = jnp.arange(4 * 5 * 7).reshape(4, 5, 7, 1).repeat(3, -1)
    cut = likelihood.cut(KEY, photos, 2, 3)
    assert cut.shape == (8, 3, 3, 3)
    for photo, window in zip(photos.repeat(2, 0), cut, strict=True):
        i, j = np.argwhere(np.asarray(photo[..., 0]) == int(window[0, 0, 0]))[0]
        np.testing.assert_array_equal(window, photo[i : i + 3, j : j + 3])
    assert len({int(window[0, 0, 0]) % 35 for window in cut}) > 1


@pytest.mark.slow
def test_a_step_teaches_to_read_sharpening():
    """After some steps on softened white noise a strong mask is told from none, on photos that it never saw."""
    smooth = jnp.asarray(blur.gaussian_kernel(1.0, 9), jnp.float32)[None].repeat(2, 0)
    amounts, sigmas = jnp.asarray([0.0, 5.0]), jnp.asarray([1.0, 2.2])
    bank = Shot(smooth, amounts, sigmas, None, None)
    config = ConfigDict({"kept": 8, "batch": 4, "sharpening": {"window": 16, "windows": 4}})
    reader, sharpens = Reader(lags=LAGS, width=8, dim=4, window=32), SharpeningReader(width=8)
    method = Likelihood(reader, sharpens, {"reader": optax.adam(3e-3), "sharpening": optax.adam(1e-2)}, config)
    state = jit(lambda key: likelihood.init(method, bank, key))(KEY)
    rng, step, reach = np.random.default_rng(0), jit(likelihood.make_step(method)), 4 + HALO
    for _ in range(90):
        batch = {"unknown_sharp": rng.integers(0, 256, (8, 32 + 2 * reach, 32 + 2 * reach, 3), np.uint8)}
        state, metrics = step(state, {"bank": bank}, batch, KEY)
    assert metrics["loss_sharpening"] < 0.3  # 2.8 before
    new = jnp.asarray(rng.random((16, 16 + 2 * reach, 16 + 2 * reach, 3)), jnp.float32)
    photos, numbers = likelihood.lessons(bank, new, KEY)
    kinds = sharpens.apply(state.params["sharpening"], photos).argmax(1)
    np.testing.assert_array_equal(kinds, sharpening.kind(amounts, sigmas)[numbers])


# ---------------------------------------------------------------------------------------------------------------- stage


def tiny_run(tmp_path, count: int = 40, **changes) -> Run:
    config = demo.get_config("quick")
    config.camera.update(learner="likelihood", crop=32)
    config.camera.bank.update(count=30, kept=32, batch=8)
    config.camera.update(changes)
    run = Run(config, tmp_path)
    pile = ArraySource("pile", image=np.zeros((count, 64, 64, 3), np.uint8))
    run.__dict__["unknown"] = SimpleNamespace(blur=pile, sharp=pile)
    return run


def test_the_bank_has_every_kind_of_blur_and_the_parts_that_are_asked_for(tmp_path):
    run = tiny_run(tmp_path)
    run.config.camera.network.update(sharpening=True, noise=False)
    shot = camera_likelihood.draw(run, 30, camera_noise.Noise(0.0, 0))
    kinds = len(run.config.camera.bank.family)
    assert shot.kernel.shape == (30, 21, 21) and shot.noise is None
    np.testing.assert_allclose(shot.kernel.sum((1, 2)), 1, rtol=1e-5)
    spec = next(iter(run.config.camera.bank.family.to_dict().values())) | {"size": 21}
    assert not np.allclose(shot.kernel[0], shot.kernel[kinds])  # the same kind, another draw
    np.testing.assert_allclose(shot.kernel[0], blur.draw(np.random.default_rng(run.config.seed), spec), atol=1e-7)
    assert 3 < int((shot.amount > 0).sum()) < 27 and float(shot.amount.max()) <= 6


def test_what_the_camera_hardly_ever_does_is_left_out(tmp_path):
    run = tiny_run(tmp_path)
    run.config.camera.network.update(sharpening=False, noise=False)
    weight = np.zeros(30)
    weight[[3, 7]], weight[5] = [0.6, 0.4], 1e-5
    bank = camera_likelihood.draw(run, 30, camera_noise.Noise(0.0, 0))
    hyper, variables = camera_likelihood.found(run, bank, weight)
    assert hyper["count"] == 2
    np.testing.assert_allclose(variables["params"]["weight"], [0.6, 0.4], rtol=1e-4)
    np.testing.assert_array_equal(variables["params"]["kernel"], taken(bank, np.array([3, 7])).kernel)


@pytest.mark.parametrize(
    ("shape", "rows", "columns"), [((12, 9), (2, 6), (0, 4)), ((4, 6), (0, 0), (0, 2)), ((5, 8), (0, 1), (0, 4))]
)
def test_four_windows_about_the_middle_of_a_photo_are_read(shape, rows, columns):
    photo = np.arange(np.prod(shape), dtype=np.uint8).reshape(*shape, 1).repeat(3, -1)
    got = camera_likelihood.windows(photo, 4) * 255
    wanted = [photo[i : i + 4, j : j + 4] for i in rows for j in columns]
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def a_pile(folder, *heights: int) -> Skipping:
    """Photos of noise, 40 pixels wide, on disk."""
    files, rng = [folder / f"{number}.png" for number in range(len(heights))], np.random.default_rng(0)
    for file, height in zip(files, heights, strict=True):
        images.write(file, rng.integers(0, 256, (height, 40, 3), np.uint8))
    return Skipping(Photos(files), BadPhotos())


def test_a_blurry_photo_smaller_than_the_crop_is_not_read(tmp_path, capsys):
    run = tiny_run(tmp_path)
    run.config.camera.bank.reader.update(width=8, dim=4, lags=LAGS)
    run.__dict__["unknown"] = SimpleNamespace(blur=a_pile(tmp_path, 40, 20, 33))
    features = camera_likelihood.read(run, camera_likelihood.create(run))
    assert len(features) == 3 and "1.png is 40x20 pixels, smaller than the 32" in capsys.readouterr().out
    np.testing.assert_array_equal(features[1], features[2])  # the next one in its place


def test_nine_windows_from_corner_to_corner_of_a_photo():
    photo = np.arange(9 * 12).reshape(9, 12, 1)
    cut = camera_likelihood.windows_all_over(photo, 3)
    assert cut.shape == (9, 3, 3, 1)
    np.testing.assert_array_equal(cut[[0, 4, 8], 0, 0, 0], [0, 3 * 12 + 4, 6 * 12 + 9])
    assert camera_likelihood.windows_all_over(photo, 64).shape == (9, 9, 9, 1)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("network", {"field": 16}, "choose adversarial"),
        ("bank", {"response": 0.0}, r"camera\.bank\.response is 0\.0; wanted is a positive power"),
        ("network", {"kernel": False}, "choose adversarial"),
        ("network", {"size": 9}, r"camera\.bank: no shot can be drawn: .* does not fit"),
        ("bank", {"family": {"odd": {"kind": "spiral"}}}, "no shot can be drawn: .*spiral"),
        ("bank", {"count": 0}, r"camera\.bank\.count is 0"),
        ("bank", {"kept": 3}, r"camera\.bank\.kept is 3; the photos of a step are at least camera\.batch"),
        ("bank", {"optimizer": {"name": "sgd"}}, r"camera\.bank\.optimizer"),
        ("bank", {"sharpening": {"window": 8}}, "has windows of 8 pixels, 4 of a photo; wanted at least 16"),
        (
            "bank",
            {"sharpening": {"windows": 0}},
            "64 pixels, 0 of a photo; wanted at least 16 pixels, and 1 of a photo",
        ),
        ("bank", {"sharpening": {"optimizer": {"schedule": "up"}}}, r"camera\.bank\.sharpening\.optimizer"),
    ],
)
def test_settings_that_it_does_not_know_are_refused(tmp_path, part, value, message):
    run = tiny_run(tmp_path)
    run.config.camera[part].update(value)
    with pytest.raises(UserError, match=message):
        camera.check(run)


def test_the_sharpening_that_all_photos_together_make_likeliest_is_every_shots(tmp_path):
    """A network that sees one kind twice as often as the bank has it, whatever the photo, and the others as often."""
    run = tiny_run(tmp_path)
    run.config.camera.network.update(sharpening=True, noise=False)
    bank, wanted = camera_likelihood.draw(run, 4000, camera_noise.Noise(0.0, 0)), KINDS.index((2.25, 1.25))
    share = np.bincount(sharpening.kind(bank.amount, bank.sigma), minlength=len(KINDS)) / 4000
    method = camera_likelihood.create(run)
    params = jax.tree.map(jnp.zeros_like, jit(method.sharpening.init)(KEY, jnp.zeros((1, 32, 32, 3))))
    params["params"]["out"]["bias"] = jnp.log(share * np.where(np.arange(len(KINDS)) == wanted, 2, 1))
    settled, read = camera_likelihood.settled(run, method, bank, params)
    assert set(np.asarray(settled.amount)) == {2.25} and set(np.asarray(settled.sigma)) == {1.25}
    np.testing.assert_allclose(
        [one[2] for one in read], np.where(np.arange(len(KINDS)) == wanted, 0, -np.log(2)), atol=1e-3
    )
    assert settled.kernel is bank.kernel


@pytest.mark.slow
def test_what_is_learnt_serves_the_stages_after_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(camera_photos, "CROPS", 8)
    monkeypatch.setattr(camera_noise, "found", lambda pile: camera_noise.Noise(0.05, 75))  # the photos are too few
    run = tiny_run(tmp_path, steps=3, batch=4)
    run.config.camera.bank.reader.update(width=8, dim=4, lags=LAGS)
    run.config.camera.network.update(sharpening=True, noise=True)
    photos = np.random.default_rng(0).integers(0, 256, (40, 72, 72, 3), np.uint8)
    run.__dict__["unknown"] = SimpleNamespace(blur=ArraySource("b", image=photos), sharp=ArraySource("s", image=photos))
    camera.check(run)
    camera.fit(run, lambda: None)
    found = json.loads((tmp_path / "camera" / "scores.json").read_text())
    assert "camera: not used, of photos held out only" in capsys.readouterr().out and found["nats_read"] < 1
    learnt = camera.load(Run(run.config, tmp_path))  # as a run that is resumed reads it
    (amount, sigma) = next(one[:2] for one in found["sharpening_read"] if one[2] == 0)
    assert set(np.asarray(learnt.variables["params"]["amount"])) == {np.float32(amount)}
    assert set(np.asarray(learnt.variables["params"]["sigma"])) == {np.float32(sigma)}
    assert isinstance(learnt.module, Bank) and learnt.module.count == found["shots"]
    made = pairs.open_pairs(run, ConfigDict({"known": 0, "augment": False}))
    batch = {"unknown_sharp": photos[:2, :68, :68]}
    blurry, sharp = made.make(made.frozen, batch, KEY)
    assert blurry.shape == sharp.shape == (2, 32, 32, 3)
    shots = camera_photos.shots(run, learnt.module, learnt.variables)
    assert 0.04 <= float(shots.noise.min()) <= float(shots.noise.max()) <= 0.06 and float(shots.quality) == 75
    assert shots.kernel.shape == (camera_photos.SHOTS, 21, 21)

    run.config.kernel_field.update(enabled=True, teacher="reader", known=50)
    undo = {"name": "nafnet", "width": 4, "encoders": (1,), "middle": 1, "decoders": (1,)}
    run.config.denoiser.update(enabled=True, steps=2, batch=2, crop=32)
    run.config.denoiser.network.update(undo)
    denoiser.check(run)
    (tmp_path / "camera" / "scores.json").write_text(json.dumps(found | {"usable": True}))
    denoiser.fit(run, lambda: None)
    assert not agreement.knows_kernels(run)
    small = {"name": "nafnet", "width": 4, "encoders": (1,), "middle": 1, "decoders": (1,), "unshuffle": 1}
    run.config.deblurrer.network.update(**small, local=False)
    variables = common.create(run.config.deblurrer.network, jnp.float32).init(KEY, jnp.zeros((1, 32, 32, 3)))
    networks.export(tmp_path, "deblurrer", small, variables)
    monkeypatch.setattr(agreement, "PHOTOS", 2)
    monkeypatch.setattr(camera_noise, "spectrum", None)  # would raise if called: a denoiser makes it needless
    kernel_field.fit(run, lambda: None)
    tried = json.loads((tmp_path / "kernel_field" / "scores.json").read_text())
    assert (tried["rule"], tried["step"]) in WAYS
    assert list(tried["psnr"]) == ["alone", *(f"{rule} {step}" for rule in ("held", "filled") for step in STEPS)]
    named = f"{tried['rule']} {tried['step']}" if tried["step"] else tried["rule"]
    assert f"kernel_field: chose {named} on photos made by the learnt camera: alone " in capsys.readouterr().out
    module, variables = networks.load(tmp_path / "kernel_field" / "weights.safetensors", jnp.float32)
    reader, x = run.read(kernel_field.reader_path(run)), jnp.asarray(photos[:2, :32, :32] / np.float32(255))
    scores = reader.module.apply(reader.variables, x, shots_of(learnt.variables)) + jnp.log(
        learnt.variables["params"]["weight"]
    )
    np.testing.assert_allclose(module.apply(variables, x, method="shares"), jax.nn.softmax(scores), atol=1e-5)
    assert (module.rule, module.step) == (tried["rule"], tried["step"])
    assert module.reach == 21 + 2 * HALO and not variables["params"]["noise"].any()
    denoised = module.apply(variables, x, method="denoised")
    np.testing.assert_allclose(denoised, networks.runner(run.network("denoiser"))(x).clip(0, 1), atol=1e-5)
    run.config.evaluation.update(fixed_filter=False, oracle=False)
    table = rows.Table(run, [], tmp_path / "choices.json")
    assert list(rows.methods(table)) == ["input", "deblurrer", "kernel_field", "consistent"]
    run.config.evaluation.rows = ("consistent",)
    assert list(rows.methods(table)) == ["input", "consistent"]

    run.config.adaptation.enabled, run.config.evaluation.rows = True, ()
    monkeypatch.setattr(agreement, "ADAPTED_PHOTOS", 3)
    step = agreement.choose_step(run, run.network("deblurrer"))
    tried = json.loads((tmp_path / "adaptation" / "agreement.json").read_text())
    assert step == tried["step"] in (0.0, *STEPS) and list(tried["psnr"]) == [str(one) for one in (0.0, *STEPS)]
    assert f"adaptation: chose step {step} towards agreement on photos made by the" in capsys.readouterr().out
    there = ["input", "deblurrer", "kernel_field", "consistent", "adapted"]
    (tmp_path / "config.json").write_text(run.config.to_json_best_effort())
    for step in (0.0, 0.5):
        networks.export(tmp_path, "adaptation", small, run.network("deblurrer").variables, step)
        assert list(rows.methods(table)) == there + ["adapted_consistent"] * (step > 0)
        assert system.from_run(tmp_path).step == step
    systems = {name: b2b_jax.load(tmp_path, method=name) for name in ("deblurrer", "consistent", "adapted_consistent")}
    assert re.search(r"Consistent \([\d,]+ parameters\)", repr(systems["consistent"]))
    assert re.search(r"Held \([\d,]+ parameters\)", repr(b2b_jax.load(tmp_path)))  # the first that the run has
    alone, agreeing, held = (system(photos[0]) for system in systems.values())
    assert alone.shape == agreeing.shape == held.shape == (72, 72, 3) and not np.array_equal(alone, agreeing)
    networks.export(tmp_path, "adaptation", small, run.network("deblurrer").variables)
    with pytest.raises(UserError, match="has no adapted deblurrer with a step towards agreement with the photo; its o"):
        b2b_jax.load(tmp_path, method="adapted_consistent")


def test_a_reader_is_wanted_from_a_camera_that_has_one(tmp_path):
    run = tiny_run(tmp_path, learner="adversarial")
    run.config.kernel_field.update(enabled=True, teacher="reader")
    with pytest.raises(UserError, match=r"camera\.learner, with kernel_field\.teacher=reader, is 'adversarial'"):
        kernel_field.check(run)
    run.config.camera.weights = str(tmp_path / "mine.safetensors")
    with pytest.raises(UserError, match=r"there is no reader at .*reader/weights\.safetensors"):
        kernel_field.check(run)


BANK = {"name": "bank", "count": 2, "size": 5, "sharpening": False, "noise": False}


def given(run, section: str, hyper: dict, variables, beside: str = "") -> None:
    """Gives the run a network, in a folder beside its own; `beside` names one that lies in that folder's own."""
    folder = run.workdir / "given" / section / beside
    networks.export(folder.parent, folder.name, hyper, variables)
    if not beside:
        run.config[section].weights = str(folder / "weights.safetensors")


def untrained(hyper: dict, *inputs):
    """Variables of zeros."""
    hyper = dict(hyper)
    shapes = jax.eval_shape(models.create(hyper.pop("name"), **hyper).init, KEY, *inputs)
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


NAFNET = {"name": "nafnet", "width": 4, "encoders": (1,), "middle": 1, "decoders": (1,)}
PHOTO = jnp.zeros((1, 32, 32, 3))


def test_a_given_camera_has_to_be_one_that_a_reader_knows(tmp_path):
    run = tiny_run(tmp_path, learner="adversarial")
    run.config.kernel_field.update(enabled=True, teacher="reader")
    given(run, "camera", BANK, listed(shots(2), jnp.array([0.5, 0.5])))
    given(run, "camera", NAFNET, untrained(NAFNET, PHOTO), beside="reader")
    with pytest.raises(UserError, match=r"reader/weights\.safetensors holds NAFNet, not a Reader"):
        kernel_field.check(run)
    reader = {"name": "reader", "lags": LAGS, "width": 8, "dim": 4, "window": 32}
    given(run, "camera", reader, untrained(reader, PHOTO, shots(2)), beside="reader")
    kernel_field.check(run)
    run.config.camera.crop = 64  # the sharp photos are as large
    with pytest.raises(UserError, match=r"pile/00038 is 64x64 pixels, smaller than the 68 .*--config\.camera\.crop"):
        kernel_field.check(run)
    hyper = {"name": "camera", "latent": 2, "width": 4, "size": 5, "response": True}
    given(run, "camera", hyper, untrained(hyper, jnp.zeros((1, 2))))
    with pytest.raises(UserError, match=r"camera\.weights is .*, which was learnt adversarially; give one"):
        kernel_field.check(run)
    given(run, "camera", NAFNET, untrained(NAFNET, PHOTO))
    with pytest.raises(UserError, match="holds NAFNet, not a Camera"):
        kernel_field.check(run)
    run.config.kernel_field.teacher = "camera"
    given(run, "camera", hyper, untrained(hyper, jnp.zeros((1, 2))))
    run.config.kernel_field.network.window = 46  # of which such a camera, but not that of the settings, reaches 10 more
    with pytest.raises(UserError, match=r"smaller than the 66 .*--config\.kernel_field\.network\.window"):
        kernel_field.check(run)


def test_the_response_of_a_given_camera_needs_a_denoiser(tmp_path):
    run = tiny_run(tmp_path)
    hyper = {"name": "camera", "latent": 2, "width": 4, "size": 5, "response": True}
    given(run, "camera", hyper, untrained(hyper, jnp.zeros((1, 2))))
    with pytest.raises(UserError, match=r"the response of camera\.weights needs denoiser\.enabled"):
        kernel_field.check_denoiser(run)


@pytest.mark.parametrize(
    ("hyper", "told"),
    [
        (BANK | {"count": 3}, "the camera has 3 shots, that of the kernel field 2; give those of one run"),
        ({"name": "camera", "latent": 2, "width": 4, "size": 5}, "the camera was not learnt by likelihood, as that of"),
        (BANK, ""),
    ],
)
def test_agreement_needs_the_kernel_fields_own_camera(tmp_path, monkeypatch, capsys, hyper, told):
    run, zeros = tiny_run(tmp_path), jnp.zeros((1, hyper.get("latent", 1)))
    mixture = {"name": "kernel_mixture", "count": 2, "size": 3, "reach": 3, "lags": LAGS, "width": 8, "dim": 4}
    given(run, "kernel_field", mixture, untrained(mixture, PHOTO))
    given(run, "camera", hyper, untrained(hyper, zeros))
    run.config.kernel_field.enabled = True
    monkeypatch.setattr(agreement, "choose_step", lambda run, adapted: 0.5)
    assert adaptation.agreed_step(run, None) == (0.0 if told else 0.5)
    assert bool(told) == ("adaptation: no step towards agreement" in capsys.readouterr().out)
    with pytest.raises(UserError, match=told) if told else contextlib.nullcontext():
        agreement.check(run)
    run.config.camera.crop = 64
    with pytest.raises(UserError, match=told or r"--config\.camera\.crop"):
        agreement.check(run)


def test_an_adaptation_before_the_kernel_field_says_what_it_does_without(tmp_path, capsys):
    run = tiny_run(tmp_path)
    run.config.kernel_field.update(enabled=True, teacher="reader")
    adaptation.say_what_is_missing(run)
    assert not capsys.readouterr().out  # nor is there a camera
    run.config.camera.weights = "given.safetensors"
    adaptation.say_what_is_missing(run)
    assert "adaptation: its results will not be made to agree with the photo" in capsys.readouterr().out
    (tmp_path / "kernel_field").mkdir()
    (tmp_path / "kernel_field" / "weights.safetensors").touch()
    adaptation.say_what_is_missing(run)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("held", "filled", "rule"),
    [
        ([30, 32, 31, 29.0], [29, 33, 30, 30.0], "alone"),
        ([31, 32, 31.2, 31], [31.1, 32, 31.1, 31], "held"),  # filled is as good, and takes more
        ([30, 32, 31, 29.0], [35, 36, 35, 33.0], "filled"),
    ],
)
def test_a_step_is_taken_if_it_is_surely_better(held, filled, rule):
    scores = {"alone": [30, 31, 30, 30], "held": held, "filled": filled}
    assert agreement.surest({name: np.array(score, float) for name, score in scores.items()}) == rule


@pytest.mark.parametrize(("more", "step"), [(0.55, 0), (0.6, 1)])
def test_sure_is_two_standard_errors(more, step):
    """Four gains of deviation 0.577, half of which is the error of their mean."""
    less, gains = np.array([30.0, 31, 30, 32]), np.array([-0.5, -0.5, 0.5, 0.5]) + more
    assert agreement.surest({0: less, 1: less + gains}) == step


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("more", "step"),
    [
        ([32, 33, 32, NAN], 1),
        ([32, 33, 32, INF], 1),
        ([29, 29, 28, INF], 0),
        ([NAN, 40, NAN, NAN], 0),
        ([NAN] * 4, 0),
    ],
)
def test_scores_that_are_not_finite_decide_nothing(more, step):
    scores = {0: np.array([30, 31, 30, 30.0]), 1: np.array(more, float)}
    assert agreement.surest(scores) == step
    assert agreement.surest({0: np.full(4, INF), 1: scores[0]}) == 0


def test_a_step_that_cannot_be_chosen_is_said_to_be_none(tmp_path, monkeypatch, capsys):
    run = tiny_run(tmp_path)
    monkeypatch.setattr(Run, "network", lambda run, stage: None)
    monkeypatch.setattr(networks, "held", lambda *parts: None)
    monkeypatch.setattr(agreement, "tried", lambda *asked: {0.0: np.full(3, 30.0), 0.5: np.array([31, NAN, INF])})
    assert agreement.choose_step(run, None) == 0.0
    out = capsys.readouterr().out
    assert "adaptation: chose step 0.0 towards agreement; fewer than two photos of the learnt camera" in out
    told = json.loads((tmp_path / "adaptation" / "agreement.json").read_text())
    assert told == {"step": 0.0, "psnr": {"0.0": 30.0, "0.5": 31.0}}


def test_a_shot_that_has_all_the_share_leaves_equal_ones():
    shares = jnp.array([[0.25, 0.5, 0.25], [0.0, 1.0, 0.0]])
    np.testing.assert_array_equal(agreement.without(shares, 1), [[0.5, 0, 0.5], [0.5, 0, 0.5]])
    np.testing.assert_array_equal(agreement.without(jnp.ones((2, 1)), 0), [[1], [1]])


@pytest.mark.parametrize(
    ("network", "answer"),
    [
        ({"name": "bank"}, False),
        ({"name": "patchgan", "ndf": 4}, False),
        ({"name": "kernel_wizard", "nf": 4, "kernel_dim": 4, "reductions": 1}, False),
        ({"name": "nafnet", "width": 4, "encoders": (1,), "decoders": (1,)}, True),
        ({"name": "mimo_unet", "base_channels": 4, "num_res": 1}, True),
    ],
)
def test_a_network_that_restores_photos_is_known(network, answer):
    assert common.restores(models.create(**network)) == answer


def test_a_given_denoiser_has_to_restore_photos(tmp_path):
    run, hyper = tiny_run(tmp_path), {"name": "bank", "count": 2, "size": 5, "sharpening": False, "noise": False}
    networks.export(tmp_path, "given", hyper, listed(shots(2), jnp.array([0.5, 0.5])))
    run.config.denoiser.weights = str(tmp_path / "given" / "weights.safetensors")
    kernel_field.check_denoiser(run)  # not enabled
    run.config.denoiser.enabled = True
    with pytest.raises(UserError, match="it holds a bank, which does not restore photos"):
        kernel_field.check_denoiser(run)


def test_a_response_needs_a_denoiser(tmp_path):
    run = tiny_run(tmp_path)
    run.config.kernel_field.update(enabled=True, teacher="reader")
    run.config.camera.network.response = True
    with pytest.raises(UserError, match=r"camera\.network\.response needs denoiser\.enabled"):
        kernel_field.check(run)
    run.config.denoiser.enabled = True
    kernel_field.check(run)


def test_a_denoiser_that_is_enabled_comes_first(tmp_path):
    run = tiny_run(tmp_path)
    run.config.kernel_field.update(enabled=True, teacher="reader")
    run.config.denoiser.enabled, run.config.stages = True, ("deblurrer", "camera", "kernel_field")
    with pytest.raises(UserError, match=r"the denoiser is enabled and not trained yet; name it in config\.stages"):
        kernel_field.check(run)
    left_out.keep(run, "denoiser", "the camera has no noise, no JPEG and no response")
    kernel_field.check(run)


def test_the_deblurrer_that_a_kernel_field_is_chosen_for_comes_first(tmp_path):
    run = tiny_run(tmp_path)
    run.config.kernel_field.update(enabled=True, teacher="reader")
    run.config.stages = ("camera", "kernel_field")
    with pytest.raises(UserError, match=r"the deblurrer is not trained yet; name it in config\.stages"):
        kernel_field.check(run)
    run.config.deblurrer.weights = "given.safetensors"
    kernel_field.check(run)


def test_an_unknown_row_is_refused(tmp_path):
    run = tiny_run(tmp_path)
    run.config.evaluation.rows = ("deblurrer", "best")
    with pytest.raises(UserError, match=r"evaluation\.rows is 'best'; it can be input, deblurrer, "):
        rows.check(run)
    run.config.evaluation.rows = ("deblurrer,fixed_filter", "adapted")  # as the command line gives them
    rows.check(run)
    assert rows.asked(run) == ["deblurrer", "fixed_filter", "adapted"]


@pytest.mark.parametrize("stage", [camera, denoiser])  # both are checked, whatever the other says
def test_an_unknown_learner_is_refused(tmp_path, stage):
    with pytest.raises(UserError, match=r"camera\.learner is 'guess'; it can be adversarial, likelihood"):
        stage.check(tiny_run(tmp_path, learner="guess"))


def test_photos_smaller_than_the_crop_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"camera\.crop"):
        camera.check(tiny_run(tmp_path, crop=60))


def test_photos_held_out_that_are_all_too_small_are_refused(tmp_path):
    run = tiny_run(tmp_path, crop=28)
    run.unknown.blur = a_pile(tmp_path, *[40] * 8, 20, 20)
    with pytest.raises(UserError, match=r"8\.png is 40x20 pixels, .* set a smaller --config\.camera\.crop"):
        camera.check(run)


def test_a_camera_that_can_hardly_be_read_is_doubted():
    found = {"nats_read": 0.4, "spread": [2.0, 0.1]}
    (reason,) = camera_figures.doubts(found, 0.0)
    assert "only 0.4 nats" in reason
    assert not camera_figures.doubts(found | {"nats_read": 1.4}, 0.0)


def test_the_photos_of_its_pairs_are_as_large_as_its_reach_wants(tmp_path):
    run = tiny_run(tmp_path)
    (supply, *_) = pairs.wanted(run, ConfigDict({"known": 0}))
    assert supply.crop(32).extent == 32 + 2 * camera_likelihood.network(run).reach
