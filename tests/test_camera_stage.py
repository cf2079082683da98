"""The stages camera and adaptation: what is held out, how a camera is described and doubted, its pairs."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import jit
from ml_collections import ConfigDict
from scipy import ndimage

from b2b_jax import images, main, models, synthesize
from b2b_jax.data import finding, pipeline
from b2b_jax.data.skipping import BadPhotos, Skipping, apart
from b2b_jax.data.sources import ArraySource
from b2b_jax.errors import UserError
from b2b_jax.evaluation import rows, summary
from b2b_jax.files import write_json
from b2b_jax.images import ImageError
from b2b_jax.method import adaptation, blur2blur, paired_translation
from b2b_jax.method.blur2blur import Blur2Blur, Photos
from b2b_jax.method.known_blur import Supply
from b2b_jax.method.paired_translation import Lesson
from b2b_jax.models.camera import Shot
from b2b_jax.stages import (
    STAGES,
    camera,
    camera_dataset,
    camera_figures,
    camera_photos,
    common,
    left_out,
    translator_pairs,
)
from b2b_jax.stages import adaptation as adaptation_stage
from b2b_jax.stages.pairs import Pairs
from b2b_jax.stages.run import Run
from b2b_jax.training import state as states
from configs import camera as camera_config
from configs import demo

KEY = jax.random.key(0)


def kernels(*pixels: tuple[int, int], size: int = 9) -> np.ndarray:
    """One kernel of equal weights at `pixels`, (1, size, size)."""
    kernel = np.zeros((1, size, size))
    for i, j in pixels:
        kernel[0, i, j] = 1 / len(pixels)
    return kernel


# -------------------------------------------------------------------------------------------------------------- figures


def test_spread_is_along_the_longer_axis():
    diagonal = kernels((2, 2), (6, 6))
    across = kernels((4, 1), (4, 7), (3, 4), (5, 4))
    spreads = camera_figures.spread(np.concatenate([diagonal, across]))
    np.testing.assert_allclose(spreads, [2 * np.sqrt(2), np.sqrt(4.5)], rtol=1e-6)


def test_distance_pads_the_smaller_kernels():
    assert camera_figures.distance(kernels((4, 4)), kernels((2, 2), size=5)) == 0
    assert camera_figures.distance(kernels((4, 4)), kernels((2, 3), size=5)) == 1


def test_kernels_are_drawn_white_at_their_peak():
    picture = camera_figures.enlarged(kernels((0, 0), (8, 8)), 20)
    assert picture.shape == (1, 20, 20, 3)
    assert picture[0, 1:3, 1:3].min() == 1 and picture[0, 17:19, 17:19].min() == 1 and picture.sum() == 2 * 4 * 3
    sheet = camera_figures.sheet(np.repeat(kernels((4, 4)), 40, 0))
    assert sheet.shape == (4 * 88, 8 * 88, 3) and sheet[88 + 44, 88 + 44].max() == 1


def test_figures_leave_out_what_the_camera_lacks():
    shot = Shot(None, np.array([1.0, 3.0]), np.array([2.0, 2.0]), None, None)
    assert camera_figures.figures(shot) == {"sharpening": [2.0, 1.0], "sharpening_sigma": [2.0, 0.0]}
    found = {"noise": [0.0125, 0.002], "jpeg_quality": [75.0, 0.0], "spread": [2.13, 0.5], "shots": 8}
    assert camera_figures.told(found) == "spread 2.13 ± 0.50 pixels, noise 3.2 ± 0.5 grey levels, JPEG quality 75 ± 0"


@pytest.mark.parametrize(
    ("auc", "spread", "sharpening", "reason"),
    [(0.6, 2.0, 0.1, ""), (0.6, 0.2, 2.0, ""), (0.99, 2.0, 0.1, "AUC 0.99"), (0.6, 0.2, 0.1, "no blur was found")],
)
def test_a_camera_is_doubted(auc, spread, sharpening, reason):
    found = {"held_out_auc": auc, "spread": [spread, 0.1], "sharpening": [sharpening, 0.1], "evidence": 7.0}
    reasons = camera_figures.doubts(found, 6.0)
    assert len(reasons) == bool(reason) and all(reason in line for line in reasons)


def test_noise_is_measured_where_photos_are_flat():
    rng, edge = np.random.default_rng(0), np.zeros((4, 66, 66, 3))
    edge[:, :, 20:40] = 0.5
    for sigma in (0.002, 0.02):
        measured = camera_figures.noise(edge + sigma * rng.standard_normal(edge.shape))
        assert 0.7 * sigma < measured < sigma


@pytest.mark.parametrize(
    ("auc", "noise", "note"),
    [
        (0.6, (0.004, 0.004), ""),
        (0.8, (0.004, 0.004), "AUC 0.80"),
        (0.6, (0.002, 0.02), "5.1 against 0.5 grey levels"),
        (0.6, (0.02, 0.002), ""),  # which the camera learns
        (0.97, (0.004, 0.004), ""),  # which is a doubt
    ],
)
def test_a_camera_is_used_with_a_note(auc, noise, note):
    lines = camera_figures.notes({"held_out_auc": auc, "noise_of_piles": noise})
    assert len(lines) == bool(note) and all(note in line for line in lines)


def test_noise_that_jpeg_took_away_counts_as_the_cameras():
    found = {"noise_of_piles": (0.002, 0.02), "noise": [0.03, 0.0]}
    assert camera_figures.notes(found) == []


# ---------------------------------------------------------------------------------------------------------------- piles


def pile(count: int) -> ArraySource:
    return ArraySource("pile", image=np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3)))


def test_the_last_photos_are_held_out():
    train, held = apart(pile(10), 3)
    assert [photos[i]["name"][-2:] for photos in (train, held) for i in range(len(photos))] == [
        f"{i:02d}" for i in range(10)
    ]
    assert len(train) == 7 and held.size(0) == ("pile/00007", 8, 8)


def test_what_skips_bad_photos_still_does_apart():
    bad = BadPhotos()
    parts = apart(Skipping(pile(10), bad), 2)
    assert all(isinstance(part, Skipping) and part.bad is bad for part in parts) and len(parts[1]) == 2


@pytest.mark.parametrize(("count", "held"), [(8, 2), (100, 6), (100_000, 64)])
def test_a_sixteenth_is_held_out(count, held):
    assert camera_photos.held(range(count)) == held


def tiny_run(tmp_path, **piles) -> Run:
    config = demo.get_config("quick")
    run = Run(config, tmp_path)
    run.__dict__["unknown"] = SimpleNamespace(**piles)
    return run


def test_too_few_photos_are_said_and_nothing_is_trained(tmp_path, capsys):
    run = tiny_run(tmp_path, blur=pile(7), sharp=pile(40))
    camera.check(run)
    camera.fit(run, lambda: None)
    assert "camera: not used, unknown_blur has 7 photos" in capsys.readouterr().out
    assert not camera.usable(run) and not run.trained("camera")
    assert not json.loads((tmp_path / "camera" / "scores.json").read_text())["usable"]
    assert left_out.reason(run, "camera") == "unknown_blur has 7 photos, at least 8 are needed"


@pytest.mark.parametrize("name", ["denoiser", "kernel_field", "adaptation", "blur2blur_pairs"])
def test_a_stage_without_camera_records_why(tmp_path, name, capsys):
    run = tiny_run(tmp_path)
    run.config.kernel_field.teacher = "camera"
    STAGES[name].fit(run, lambda: None)
    assert left_out.reason(run, name).startswith("there is no usable camera to ")
    assert f"{name}: left out, there is no usable camera to " in capsys.readouterr().out


def test_a_stage_that_was_left_out_looks_again(tmp_path):
    run, seen = tiny_run(tmp_path), []
    left_out.say(run, "denoiser", "there is no camera")
    stage = dataclasses.replace(STAGES["denoiser"], fit=lambda *_: seen.append(left_out.reason(run, "denoiser")))
    main.training("denoiser", stage).run(run)
    assert seen == [""] and not left_out.reason(run, "denoiser")


@pytest.mark.parametrize(
    "discriminator, message",
    [
        ({"name": "patchgan", "lags": 5}, "lags"),  # what is left of the other's keys
        ({"name": "patchgan", "norm": "batch"}, r"camera\.discriminator\.norm"),
        ({"name": "vgg"}, r"camera\.discriminator\.name"),
    ],
)
def test_a_discriminator_that_does_not_fit_is_refused(tmp_path, discriminator, message):
    run = tiny_run(tmp_path, blur=pile(7), sharp=pile(40))
    run.config.camera.discriminator = ConfigDict(discriminator)
    with pytest.raises(UserError, match=message):
        camera.check(run)


@pytest.mark.parametrize("verdict", [True, False])
def test_what_needs_a_refused_camera_is_not_waited_for(tmp_path, verdict):
    run = tiny_run(tmp_path)
    assert adaptation_stage.needed(run)
    write_json(tmp_path / "camera" / "scores.json", {"usable": verdict})
    (tmp_path / "camera" / "weights.safetensors").touch()
    assert adaptation_stage.needed(run) == verdict


@pytest.mark.parametrize("content, state", [(None, "missing"), ("", "damaged"), ("{}", "damaged")])
def test_a_camera_whose_verdict_is_lost_is_not_taken_for_refused(tmp_path, content, state):
    run = tiny_run(tmp_path)
    (tmp_path / "camera").mkdir()
    (tmp_path / "camera" / "weights.safetensors").touch()
    if content is not None:
        (tmp_path / "camera" / "scores.json").write_text(content)
    with pytest.raises(UserError, match=rf"camera/scores\.json is {state}, which says whether the camera is used"):
        main.work_names(run)


# ---------------------------------------------------------------------------------------------------------------- pairs


def test_pairs_are_the_cameras_or_known_ones():
    module = models.create("camera", size=5, sharpening=False, noise=False)
    variables = module.init(KEY, jnp.zeros((1, 8)))
    photo = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3)).astype(np.uint8)
    zeros = np.zeros((64, 8, 8, 3), np.uint8)
    batch = {"unknown_sharp": photo, "known_blurry": zeros, "known_sharp": zeros}
    config = ConfigDict({"augment": False, "known": 0.25})
    blurry, sharp = jit(adaptation.make_pairs(module, 0.0, config))({"camera": variables}, batch, KEY)
    known = np.all(np.asarray(blurry) == 0, axis=(1, 2, 3))
    assert 4 < known.sum() < 30
    np.testing.assert_array_equal(np.asarray(sharp)[known], 0)
    np.testing.assert_allclose(np.asarray(sharp)[~known], photo[~known, 2:-2, 2:-2] / 255, rtol=1e-6)


def test_a_turned_photo_is_not_turned_back_by_its_blur():
    module = models.create("camera", size=5, sharpening=False, noise=False)
    variables = module.init(KEY, jnp.zeros((1, 8)))
    bias = variables["params"]["kernel_part"]["logits"]["bias"]
    variables["params"]["kernel_part"]["logits"]["bias"] = jnp.where(jnp.arange(25) // 5 == 2, 9.0, 0 * bias)
    variables["params"]["kernel_part"]["logits"]["kernel"] *= 0
    sharp = np.zeros((32, 13, 13, 3), np.uint8)
    sharp[:, 6, 3:10] = 255  # a horizontal line
    config = ConfigDict({"augment": True, "known": 0.0})
    pairs = jit(adaptation.make_pairs(module, 0.02, config))({"camera": variables}, {"unknown_sharp": sharp}, KEY)
    blurry, sharp = (np.asarray(x[..., 0]) for x in pairs)
    upright = sharp[:, 4, 4] * sharp[:, 3, 4] > 0
    assert 8 < upright.sum() < 24
    # Horizontal blur lowers an upright line to a fifth and leaves a horizontal one as it is.
    np.testing.assert_allclose(blurry[upright, 4, 4], 0.2, atol=0.01)
    np.testing.assert_allclose(blurry[~upright, 4, 4], 1.0, atol=0.01)


def test_a_state_starts_with_given_weights():
    adams = {name: optax.adam(1.0) for name in ("a", "b")}
    state = states.create({"a": {"w": jnp.ones(3)}, "b": {"w": jnp.ones(2)}}, adams, ("a",))
    given = {"a": {"w": jnp.full(3, 7.0)}}
    new = states.started(state, given)
    for tree in (new.params["a"], new.ema["a"]):
        np.testing.assert_array_equal(tree["w"], 7)
        assert tree["w"].unsafe_buffer_pointer() != given["a"]["w"].unsafe_buffer_pointer()
    assert new.params["b"] is state.params["b"]


# ---------------------------------------------------------------------------------------------------------- its results


def test_the_best_system_is_the_runs_method():
    scores = {
        "input": {"psnr": 30.0},
        "deblurrer": {"psnr": 21.0},
        "blur2blur": {"psnr": 23.0},
        "oracle": {"psnr": 40.0},
    }
    assert rows.best(scores) == "blur2blur"
    assert rows.best(scores | {"adapted": {"psnr": 24.0}}) == "adapted"
    assert rows.best(scores | {"deblurrer": {"psnr": 24.0}}) == "deblurrer"


def test_the_report_shows_the_camera(tmp_path):
    found = {"held_out_auc": 0.53, "spread": [2.1, 0.2], "noise": [0.001, 0.0], "usable": True, "reasons": []}
    found["notes"] = ["the sharp photos have more noise"]
    write_json(tmp_path / "camera" / "scores.json", found)
    images.write(tmp_path / "camera" / "kernels.png", np.zeros((8, 8, 3), np.uint8))
    (shown,) = summary.camera(Run(demo.get_config(), tmp_path))
    assert (
        "AUC 0.53" in shown.title
        and shown.title.endswith("Note that the sharp photos have more noise")
        and list(shown.images) == ["kernels"]
    )
    assert shown.captions["kernels"] == "spread 2.10 ± 0.20 pixels, noise 0.3 ± 0.0 grey levels"
    found = {"nats_read": 2.345, "shots": 321, "spread": [2.1, 0.2], "usable": True, "reasons": [], "notes": []}
    write_json(tmp_path / "camera" / "scores.json", found)
    (shown,) = summary.camera(Run(demo.get_config(), tmp_path))
    assert shown.title == "321 blurs; 2.3 nats of the blur of photos held out are read"
    write_json(tmp_path / "camera" / "scores.json", {"usable": False, "reasons": ["no blur was found"]})
    assert "not used: no blur was found" in summary.camera(Run(demo.get_config(), tmp_path))[0].title


def test_a_known_share_of_all_is_refused(tmp_path):
    from b2b_jax.stages import adaptation as stage

    config = demo.get_config("quick")
    config.adaptation.known = 1.0
    with pytest.raises(UserError, match=r"adaptation\.known is 1\.0"):
        stage.check(Run(config, tmp_path))


# ------------------------------------------------------------------------------------------- the translator, with pairs


class Halving(nn.Module):
    """A deblurrer that halves every value."""

    @nn.compact
    def __call__(self, x, train=False):
        return self.param("half", nn.initializers.constant(0.5), ()) * x


def lesson(blurry, sharp) -> Lesson:
    generator = models.create("mimo_unet", base_channels=4, num_res=0, zero_init=True)
    return Lesson(generator, Halving(), lambda frozen, batch, key: (blurry, sharp))


def test_the_lesson_is_learnt_through_the_frozen_deblurrer():
    photo = jnp.asarray(np.random.default_rng(0).random((2, 16, 16, 3)), jnp.float32)
    taught, frozen = lesson(photo, 0.25 * photo), {"deblurrer": {"params": {"half": jnp.asarray(0.5)}}}
    adam = optax.adam(1e-3)
    state = paired_translation.init(taught, adam, 0.9, 16, KEY)
    step = jit(paired_translation.make_step(taught, adam, 0.9))
    new, metrics = step(state, frozen, {}, KEY)
    # An untrained generator is the identity, so D_K gives half the photo, a quarter of it too much.
    np.testing.assert_allclose(metrics["loss"], 0.25 * float(photo.mean()), rtol=1e-5)
    assert set(new.params) == {"generator"} and int(new.step) == 1
    for _ in range(5):
        new, later = step(new, frozen, {}, KEY)
    assert later["loss"] < metrics["loss"]


def test_lesson_and_set_k_do_not_share_names():
    photos = ArraySource("sharp", image=np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), np.uint8))
    larger = Supply(photos, lambda size: pipeline.Crop(size + 4), {"image": "unknown_sharp"})
    opened = translator_pairs.apart(Pairs([larger], lambda frozen, batch, key: batch, {}))
    streams = common.streams(tiny_run(None), [Supply(photos, pipeline.Crop, larger.names), *opened.supplies], 8, 0)
    batch = pipeline.batches(streams, 2, 0, 1)[0]
    own = opened.make({}, batch, KEY)
    assert set(own) == {"unknown_sharp"} and own["unknown_sharp"].shape == (2, 12, 12, 3)
    assert batch["unknown_sharp"].shape == (2, 8, 8, 3)


def test_both_adds_the_lessons_gradient():
    method, photos = a_method()
    state = jit(functools.partial(blur2blur.init, method))(KEY)
    photo = jnp.full((2, 16, 16, 3), 0.5)
    taught = lesson(photo, photo)

    def loss(params):
        return paired_translation.loss(taught, params, {"deblurrer": {"params": {"half": 0.5}}}, {}, KEY)

    plain, _ = jit(lambda s: blur2blur.update(method, s, {}, photos))(state)
    both, metrics = jit(lambda s: blur2blur.update(method, s, {}, photos._replace(taught=loss)))(state)
    gradient = jit(jax.grad(lambda params: loss(params)[0]))(state.params["generator"])
    for a, b, g in zip(
        *(jax.tree.leaves(x) for x in (plain.params["generator"], both.params["generator"], gradient)), strict=True
    ):
        np.testing.assert_allclose(a - b, method.config.pairs.weight * g, atol=1e-5)  # plain descent of rate 1
    assert metrics["g_pairs"] == pytest.approx(0.25)


def a_method() -> tuple[Blur2Blur, Photos]:
    """Blur2Blur with a tiny generator and plain descent of rate 1, and what it sees."""
    config = demo.get_config("quick").translator
    generator = models.create("mimo_unet", base_channels=4, num_res=0, zero_init=True)
    networks = {"generator": generator, "discriminator": models.create("patchgan", ndf=4, n_layers=0, norm="none")}
    config.crop = 16
    descent = {name: optax.sgd(1.0) for name in networks}
    photos = jnp.asarray(np.random.default_rng(1).random((2, 2, 16, 16, 3)), jnp.float32)
    return Blur2Blur(networks, descent, blur2blur.make_content("pooled", None), config), Photos(
        *photos, jnp.ones((2, 1, 1, 1)) / 2
    )


# ----------------------------------------------------------------------------------------------------- pairs for anyone


def test_the_dataset_has_whole_aligned_pairs_in_gopros_layout(tmp_path):
    sharp = np.random.default_rng(0).integers(0, 256, (10, 40, 52, 3)).astype(np.uint8)
    run = tiny_run(tmp_path, sharp=ArraySource("sharp", image=sharp))
    network = run.config.camera.network
    network.size = 5
    variables = models.create(**network.to_dict()).init(KEY, jnp.zeros((1, network.latent)))
    common.export(run, "camera", network, variables)
    pairs = list(camera_dataset.photograph(run, 11))
    assert [pair.part for pair in pairs] == [*["train"] * 9, "test", "train"]
    np.testing.assert_array_equal(pairs[10].sharp, sharp[0])
    assert np.any(pairs[10].blurry != pairs[0].blurry)  # the same photo, another shot
    synthesize.write_pairs(tmp_path / "pairs", pairs, {"seed": 0})
    record = json.loads((tmp_path / "pairs" / "camera.json").read_text())
    assert record["seed"] == 0 and record["shots"]["test/000009.png"]["photo"] == "sharp/00009"
    assert set(record["shots"]["train/000000.png"]) == {"photo", "amount", "sigma", "noise"}
    assert np.load(tmp_path / "pairs" / "kernels.npy").shape == (11, 5, 5)
    found = finding.find("gopro", tmp_path / "pairs", "train", "--config.data.known_path")
    assert len(found) == 10 and images.read(found[3].blurry).shape == (40, 52, 3)
    np.testing.assert_array_equal(images.read(found[3].blurry), pairs[3].blurry)


@pytest.mark.parametrize(
    ("photos", "count", "train", "test"), [(600, 100, 90, 10), (111, 100, 90, 10), (20, 100, 18, 2)]
)
def test_the_dataset_has_a_test_part_however_many_photos_there_are(photos, count, train, test):
    parts = camera_dataset.divided(pile(photos), count)
    assert {name: len(part) for name, part in parts.items()} == {"train": train, "test": test}
    assert parts["test"].size(test - 1)[0] == f"pile/{min(photos, count) - 1:05d}"


@pytest.mark.parametrize("broken", [(17, 19), (18, 19), (0, 16, 17)])
def test_a_photo_in_place_of_a_bad_one_is_of_the_same_part(broken):
    class Broken(ArraySource):
        def __getitem__(self, index):
            if index in broken:
                raise ImageError(f"{index}: broken")
            return super().__getitem__(index)

    photos = Skipping(Broken("pile", image=np.zeros((20, 8, 8, 3), np.uint8)), BadPhotos())
    parts = camera_dataset.divided(photos, 100).values()
    train, test = ({part[number]["name"] for number in range(len(part))} for part in parts)
    assert test and not train & test and len(train | test) == 20 - len(broken)


def test_a_photo_of_the_dataset_is_its_slow_convolution():
    module = models.create("camera", size=5, sharpening=False, noise=False)
    variables, photo = module.init(KEY, jnp.zeros((1, 8))), np.random.default_rng(0).random((20, 24, 3))
    blurry, shot = camera_dataset.shooter(module, 0.0)(variables, photo, KEY)
    kernel = np.asarray(shot.kernel)[:, :, None]
    wanted = np.rint(255 * ndimage.convolve(photo, kernel, mode="mirror"))
    np.testing.assert_allclose(255 * blurry, wanted, atol=1e-4)


@pytest.mark.parametrize("variant", ["", "small"])
def test_the_cameras_config_has_its_stages(variant):
    config = camera_config.get_config(variant)
    assert config.adaptation.enabled and camera.needed(Run(config, None))
    assert config.camera.network.size == (31 if not variant else 21)
