"""The converter check: ResNet-18's size, that it learns a blur, and what the two judges are asked."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import jit
from helpers.labelled import labelled
from scipy import ndimage

from b2b_jax import models, weights
from b2b_jax.data import pipeline
from b2b_jax.errors import UserError
from b2b_jax.evaluation import converter, evaluate, summary
from b2b_jax.method import classifier, known_blur
from b2b_jax.method.known_blur import Supply
from b2b_jax.models.classifier import ResNet18
from b2b_jax.models.layers import pyramid
from b2b_jax.models.patchgan import multiscale
from b2b_jax.stages import converter as stage
from b2b_jax.stages.known_blur import KnownBlur
from b2b_jax.stages.run import Run
from configs import default, demo


def test_resnet18_has_the_published_number_of_parameters():
    """Torchvision's resnet18 has 11,689,512, of which 512 * 1000 + 1000 belong to ImageNet's classes."""
    shapes = jax.eval_shape(ResNet18().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 11_689_512 - 513_000 + 512 + 1
    names = shapes["params"]
    assert names["layer3.1"]["conv2"]["kernel"].shape == (3, 3, 256, 256) and "downsample.0" in names["layer2.0"]
    assert jax.eval_shape(ResNet18().apply, shapes, jnp.zeros((5, 80, 64, 3))).shape == (5,)


def test_an_images_logit_does_not_depend_on_its_batch():
    module, x = ResNet18(width=8), np.random.default_rng(0).random((3, 32, 32, 3)).astype(np.float32)
    params, run = jit(module.init)(jax.random.key(0), x[:1]), jit(module.apply)
    np.testing.assert_allclose(run(params, x)[1:2], run(params, x[[1, 1, 1]])[:1], rtol=1e-4)


def noise(count, seed, blur):
    axis = {"horizontal": 2, "vertical": 1}[blur]
    photos = ndimage.uniform_filter1d(np.random.default_rng(seed).random((count, 32, 32, 3)), 5, axis=axis)
    return np.rint(255 * photos).astype(np.uint8)


@pytest.mark.slow
def test_the_classifier_learns_to_tell_two_blurs_apart():
    config = default.translator()
    config.update(augment=False, color_jitter=0.0)
    network, adam = ResNet18(width=8, input="gradient"), optax.adam(1e-3)
    state = jit(lambda key: classifier.init(network, adam, 32, key))(jax.random.key(0))
    step, losses = jit(classifier.make_step(network, adam, known_blur.make(None), config)), []
    for i in range(60):
        batch = {"unknown_blur": noise(8, 2 * i, "horizontal"), "known_blur": noise(8, 2 * i + 1, "vertical")}
        state, metrics = step(state, {}, batch, jax.random.key(1))
        losses.append(float(metrics["loss"]))
    assert int(state.step) == 60 and np.mean(losses[-5:]) < 0.3 < 0.6 < losses[0]
    answer = jit(lambda x: network.apply(state.params["classifier"], x) > 0)
    unknown, known = (noise(8, seed, blur) / np.float32(255) for seed, blur in ((900, "horizontal"), (901, "vertical")))
    assert np.mean(answer(unknown)) <= 0.25 and np.mean(answer(known)) >= 0.75


@pytest.fixture
def run(tmp_path):
    config = demo.get_config("quick")
    config.data.root = str(tmp_path / "data")
    config.evaluation.converter.update(crop=48, images=5, batch=4)
    return Run(config, tmp_path / "run")


def save_discriminator(run):
    module = models.create("patchgan", ndf=4, n_layers=1, norm="none")
    variables = jit(module.init)(jax.random.key(0), jnp.zeros((1, 12, 12, 3)))
    hyper = {"ndf": 4, "n_layers": 1, "norm": "none"}
    weights.save(run.workdir / "translator" / "discriminator" / "weights.safetensors", "patchgan", hyper, variables)
    return module, variables


def test_acc1_is_the_discriminators_mean_logit_over_the_scales_against_its_threshold(run, monkeypatch):
    module, variables = save_discriminator(run)
    x = np.random.default_rng(0).random((6, 48, 48, 3)) * np.linspace(0.1, 1, 6)[:, None, None, None]
    x = x.astype(np.float32)
    logits = [np.asarray(y) for y in multiscale(module, variables, pyramid(x))]
    mean = sum(y.mean((1, 2, 3)) for y in logits) / 3
    monkeypatch.setitem(converter.THRESHOLDS, "hinge", float(np.median(mean)))
    found = np.asarray(converter.discriminator(run)(x))
    np.testing.assert_array_equal(found, mean > np.float32(np.median(mean)))
    assert 0 < found.mean() < 1


def test_the_judges_are_asked_about_the_cameras_the_translated_and_the_known_photos(run, monkeypatch):
    asked = []

    def bright(images):
        asked.append(np.asarray(images))
        return np.mean(images, axis=(1, 2, 3)) > 0.5

    monkeypatch.setattr(converter, "discriminator", lambda run: bright)
    monkeypatch.setattr(converter, "classifier", lambda run: lambda images: np.ones(len(images), bool))
    found = converter.judge(run, lambda images: np.ones_like(images))
    assert list(found) == ["input", "converted", "known"] == list(summary.CONVERTER)
    assert found["converted"] == {"acc1": 1.0, "acc2": 1.0, "images": 5} and found["known"]["images"] == 5
    middles = np.stack([run.unknown.test[i]["blurry"][16:64, 16:64] for i in range(5)])
    np.testing.assert_allclose(asked[0], middles[:4] / np.float32(255), atol=1e-6)
    assert found["input"]["acc1"] == np.mean(middles.mean((1, 2, 3)) > 127.5)


def test_what_cannot_be_trained_is_told_before(run):
    stage.check(run)
    run.config.evaluation.converter.crop = 100
    with pytest.raises(UserError, match=r"evaluation\.converter\.crop"):
        stage.check(run)
    run.config.evaluation.converter.update(crop=48, input="depth")
    with pytest.raises(UserError, match="input 'depth' is unknown"):
        stage.check(run)
    run.config.evaluation.converter.input = "gradient"
    run.config.known_blur.source = "gone"
    with pytest.raises(UserError, match=r"known_blur\.source is 'gone'; it can be "):
        stage.check(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": ("deblurrer", "evaluation")}, r"config\.stages does not name the translator"),
        ({"translator.supervision": "camera"}, r"supervision=camera trains without one"),
        ({"translator.weights": "mine.safetensors"}, r"translator\.weights gives one that was trained elsewhere"),
    ],
)
def test_without_the_translators_discriminator_nothing_is_trained(run, change, message):
    run.config.evaluation.converter.enabled = True
    evaluate.check(run)
    run.config.update_from_flattened_dict(change)
    for check in (stage.check, evaluate.check):
        with pytest.raises(UserError, match=message):
            check(run)


def test_a_translator_that_was_trained_has_its_discriminator(run):
    run.config.stages = ("evaluation",)
    (run.workdir / "translator").mkdir(parents=True)
    (run.workdir / "translator" / "weights.safetensors").touch()
    with pytest.raises(UserError, match=r"the translator in .* was trained without one"):
        stage.check(run)
    save_discriminator(run)
    stage.check(run)


def test_validation_sees_a_photo_once_however_many_crops_of_it_training_sees(run):
    run.config.data.crops_per_image = 2
    run.config.evaluation.converter.update(crop=8)
    supply = Supply(labelled(8), pipeline.Crop, {"image": "known_blur"})
    known = KnownBlur([supply], lambda frozen, photos, key: photos["known_blur"], {})
    numbers = stage.new_known(run, known, 8)[:, 0, 0, 0]
    assert sorted(numbers) == list(range(8))


def test_the_report_shows_the_shares():
    found = {row: {"acc1": 0.5, "acc2": 0.859375, "images": 64} for row in summary.CONVERTER}
    (table,) = summary.converter_table({"converter": found})
    assert table.rows[1] == ["translated G(y)", "50.0%", "85.9%"] and table.highlight == 1
    assert summary.converter_table({}) == []
