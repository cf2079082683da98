"""The Blur2Blur step: three steps of the released code, the order of its updates, its curriculum and its penalty.

Images are NHWC float32 in [0, 1]; the reference arrays are NCHW.
"""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import REFERENCE, assert_close, jit, nhwc
from helpers.networks import KEY, images, load, random_variables
from helpers.parity import golden, vgg_weights

from b2b_jax import foreign, losses, models
from b2b_jax.errors import UserError
from b2b_jax.formats import torch_files
from b2b_jax.method import adversarial, blur2blur, known_blur
from b2b_jax.method.adversarial import Mix
from b2b_jax.method.blur2blur import Blur2Blur, Photos
from b2b_jax.models import vgg
from b2b_jax.stages import translator
from b2b_jax.training import state as states
from configs import default, demo, reds

# ---- the released code ----

# fixture -> channels of the generator, channels of the discriminator, lambda_gp, lambda_Perc
STEPS = {"step_noperc": (6, 8, 1e-3, 0.0), "step_perc_vgg16": (4, 4, 1e-4, 0.8)}
LETTERS = {"generator": "G", "discriminator": "D"}
# Convolutions in front of an instance norm: the gradient of their biases is zero but for rounding, which Adam enlarges.
NOISE = {"D.model.2.bias", "D.model.5.bias", "D.model.8.bias"}


def release_config(penalty: float, content: float):
    config = default.translator()
    config.gan_loss, config.ema, config.curriculum.start = "hinge", 0.0, 1.0
    config.gradient_penalty.weight, config.content.weight = penalty, content
    return config


def in_torch(params: dict) -> dict[str, np.ndarray]:
    """All tensors of both networks by their PyTorch names, `G.` or `D.` in front, without the meaningless ones."""
    tensors = {f"{LETTERS[n]}.{k}": v for n in params for k, v in foreign.to_torch_state(params[n]).items()}
    return {k: np.asarray(v, np.float64) for k, v in tensors.items() if k not in NOISE}


def reference_weights(name: str, when: str) -> dict[str, np.ndarray]:
    tensors = {}
    for letter in LETTERS.values():
        state = torch_files.state_dict(torch_files.read(REFERENCE / "b2b_step" / f"{name}_{letter}_{when}.pth"))
        tensors |= {f"{letter}.{k}": v.astype(np.float64) for k, v in state.items()}
    return {k: v for k, v in tensors.items() if k not in NOISE}


def start(name: str) -> tuple[dict, dict]:
    """The networks of a fixture and their weights before its first step."""
    width, ndf, *_ = STEPS[name]
    networks = {
        "generator": models.create("mimo_unet", base_channels=width, num_res=1),
        "discriminator": models.create("patchgan", ndf=ndf),
    }
    return networks, {n: load(net, f"b2b_step/{name}_{LETTERS[n]}_start") for n, net in networks.items()}


def update(method, state, frozen, photos):
    new, metrics = blur2blur.update(method, state, frozen, photos)
    return states.finished(new, state), metrics


@functools.cache
@jax.enable_x64(True)
def three_steps(name: str) -> tuple[list, list]:
    """The state before and after each of the three steps, and the metrics of each.

    Weights and Adam are in float64: rounded, they may put a leaky ReLU's input on the other side of 0, and the penalty
    jumps by 1.2e-4.
    """
    networks, params = start(name)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
    config, data = release_config(*STEPS[name][2:]), golden(f"b2b_step/{name}")
    module, frozen = vgg_weights(16, vgg.VGG16_RELEASE_LAYERS) if config.content.weight else (None, {})
    content = blur2blur.make_content("vgg16" if config.content.weight else "pooled", module)
    adams = blur2blur.optimizers(config.optimizer, config.steps)
    step = jit(functools.partial(update, Blur2Blur(networks, adams, content, config)))
    history, metrics = [states.create(params, adams)], []
    for real_a, real_b, alpha in zip(data["real_A"], data["real_B"], data["alpha"], strict=True):
        photos = Photos(nhwc(real_a), nhwc(real_b), alpha.reshape(-1, 1, 1, 1))
        new, measured = step(history[-1], {"vgg": frozen}, photos)
        history.append(new)
        metrics.append(measured)
    return jax.device_get((history, metrics))


@pytest.mark.parametrize("name", STEPS)
def test_first_translations_are_those_of_the_released_code(name):
    networks, params = start(name)
    data = golden(f"b2b_step/{name}")
    fakes = jit(networks["generator"].apply)(params["generator"], nhwc(data["real_A"][0]))
    for i, fake in enumerate(fakes):
        assert_close(fake, nhwc(data[f"step1_fake_B{i}"]))


@pytest.mark.parametrize("name", STEPS)
def test_losses_of_three_steps_are_those_of_the_released_code(name):
    ours = {
        "loss_D_fake": "d_fake",
        "loss_D_real": "d_real",
        "gradient_penalty_weighted": "gradient_penalty",
        "loss_D": "loss_d",
        "loss_G_GAN": "g_adversarial",
        "loss_G": "loss_g",
    }
    wanted = json.loads(str(golden(f"b2b_step/{name}")["losses_json"]))
    for want, got in zip(wanted, three_steps(name)[1], strict=True):
        for key, value in ours.items():
            assert_close(got[value], want[key])
        assert_close(STEPS[name][3] * got["g_content"], want["loss_G_Perc"])


@pytest.mark.parametrize("name", STEPS)
def test_first_gradients_are_those_of_the_released_code(name):
    first = three_steps(name)[0][1]
    # Adam's first moment starts at zero: after one step it is (1 - 0.5) times the gradient.
    got = in_torch({n: jax.tree.map(lambda mu: mu / 0.5, first.opt_state[n][0].mu) for n in LETTERS})
    data, prefix = golden(f"b2b_step/{name}"), "step1_grad__"
    want = {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}
    assert got.keys() == want.keys() - NOISE
    for key, gradient in got.items():
        np.testing.assert_allclose(gradient, want[key], rtol=0, atol=1e-2 * np.abs(want[key]).max(), err_msg=key)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", STEPS)
def test_weights_move_as_those_of_the_released_code(name, steps):
    before, got = reference_weights(name, "start"), in_torch(three_steps(name)[0][steps].params)
    want = reference_weights(name, f"after{steps}")
    assert got.keys() == want.keys()
    for letter in LETTERS.values():
        error, update = (
            np.concatenate([np.ravel(x[k] - y[k]) for k in want if k.startswith(letter)])
            for x, y in ((got, want), (want, before))
        )
        assert np.linalg.norm(error) <= 0.05 * np.linalg.norm(update)


# ---- the step's parts, seen through one small step ----

SMALL = {
    "generator": models.create("mimo_unet", base_channels=4, num_res=0),
    "discriminator": models.create("patchgan", ndf=4, n_layers=1, input="gradient"),
}
# Plain descent at rate 1 shows the generator's gradient; the discriminator's rate lies in the state.
PROBES = {"generator": optax.sgd(1.0), "discriminator": optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)}
EVERY, GROWN = 4, 10  # steps between penalties; step from which every image counts


def small_config():
    config = release_config(penalty=0.01, content=0.5)
    config.gradient_penalty.every = EVERY
    config.curriculum.start, config.curriculum.grow_from, config.curriculum.full_at = 0.5, 5, GROWN
    return config


def small_method(config):
    return Blur2Blur(SMALL, PROBES, blur2blur.make_content("pooled", None), config)


@functools.cache
def small_step():
    return jit(functools.partial(update, small_method(small_config())))


def small_state(step: int, rate: float, discriminator: dict | None = None) -> states.State:
    params = {name: random_variables(net, images(1, 24, 24, 3)) for name, net in SMALL.items()}
    state = states.create(params if discriminator is None else params | {"discriminator": discriminator}, PROBES)
    state.opt_state["discriminator"].hyperparams["learning_rate"] = jnp.float32(rate)
    return state.replace(step=jnp.int32(step))


def batch(order: str) -> jax.Array:
    """Images (n, 24, 24, 3) by letter: a and b are sharp; c, d and e hardly change from pixel to pixel."""
    sharp = images(5, 24, 24, 3)
    contrast = jnp.array([1, 1, 0.02, 0.02, 0.02]).reshape(-1, 1, 1, 1)
    return (0.5 + contrast * (sharp - 0.5))[jnp.array(["abcde".index(letter) for letter in order])]


KNOWN = np.linspace(0, 1, 4 * 24 * 24 * 3, dtype=np.float32).reshape(4, 24, 24, 3)
ALPHA = np.full((4, 1, 1, 1), 0.3, np.float32)


def generator_gradient(state: states.State, y: jax.Array) -> tuple[np.ndarray, states.State]:
    """The generator's whole gradient as one vector, and the state after the step."""
    new, _ = small_step()(state, {}, Photos(y, KNOWN, ALPHA))
    change = jax.tree.map(jnp.subtract, state.params["generator"], new.params["generator"])
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(change)]), new


def relative(x: np.ndarray, y: np.ndarray) -> float:
    return np.linalg.norm(x - y) / np.linalg.norm(y)


def test_the_generator_descends_against_the_updated_discriminator():
    y = batch("abcd")
    still, same = generator_gradient(small_state(0, rate=0.0), y)
    moved, new = generator_gradient(small_state(0, rate=1e-4), y)
    resumed, _ = generator_gradient(small_state(0, rate=0.0, discriminator=new.params["discriminator"]), y)
    jax.tree.map(
        np.testing.assert_array_equal, same.params["discriminator"], small_state(0, 0.0).params["discriminator"]
    )
    assert relative(moved, still) > 0.05
    assert relative(moved, resumed) < 1e-5


def test_photos_outside_the_curriculum_leave_no_trace_in_the_generator():
    half, _ = generator_gradient(small_state(0, rate=0.0), batch("abcd"))
    other, _ = generator_gradient(small_state(0, rate=0.0), batch("abed"))
    alone, _ = generator_gradient(small_state(GROWN, rate=0.0), batch("abab"))
    whole, _ = generator_gradient(small_state(GROWN, rate=0.0), batch("abcd"))
    assert relative(half, other) < 1e-5
    assert relative(half, alone) < 1e-5
    assert relative(half, whole) > 0.05


def test_the_step_counts_photos_in_the_direction_of_its_config(monkeypatch):
    config, asked = small_config(), []
    config.curriculum.direction = "blurry_first"

    def mask(y, share, direction):
        asked.append(direction)
        return jnp.ones(len(y))

    monkeypatch.setattr(blur2blur.curriculum, "mask", mask)
    step = functools.partial(update, small_method(config))
    jax.eval_shape(step, small_state(0, rate=0.0), {}, Photos(batch("abcd"), KNOWN, ALPHA))
    assert asked == ["blurry_first"]


def small_penalty(params: dict, fake: jax.Array) -> jax.Array:
    return losses.gradient_penalty(lambda x: SMALL["discriminator"].apply(params, x), KNOWN, fake, ALPHA)


def test_the_penalty_comes_in_one_step_of_several_with_their_common_weight():
    state, y = small_state(0, rate=0.0), batch("abcd")
    fake = jit(SMALL["generator"].apply)(state.params["generator"], y)[-1]
    mean = jit(small_penalty)(state.params["discriminator"], fake).mean()
    for step in range(2 * EVERY):
        new, metrics = small_step()(state.replace(step=jnp.int32(step)), {}, Photos(y, KNOWN, ALPHA))
        assert new.step == step + 1
        np.testing.assert_allclose(metrics["gradient_penalty"], 0.01 * EVERY * mean * (step % EVERY == 0), rtol=1e-5)


def lowered_penalty(platform: str, precision: str = "highest") -> str:
    params, config = random_variables(SMALL["discriminator"], images(1, 24, 24, 3)), small_config()
    config.gradient_penalty.precision = precision
    penalty = jax.grad(functools.partial(adversarial.lazy_penalty, SMALL["discriminator"], config.gradient_penalty))
    with jax.default_matmul_precision("default"):
        trace = jax.jit(penalty).trace(params, jnp.int32(0), Mix(KNOWN, KNOWN, ALPHA))
    return trace.lower(lowering_platforms=(platform,)).as_text()


def test_convolutions_of_a_lazy_penalty_have_the_axes_that_are_fast_on_a_cpu():
    orders = re.findall(r"stablehlo.convolution.*? dim_numbers = (.*?), window", lowered_penalty("cpu"))
    assert len(orders) > 6 and set(orders) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


@pytest.mark.parametrize("precision", ["high", "highest"])
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_all_convolutions_of_the_penalty_have_its_precision(platform, precision):
    text = lowered_penalty(platform, precision)
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert len(lines) > 6 and all(line.count(f"precision {precision.upper()}") == 2 for line in lines)


def test_no_penalty_is_computed_when_its_weight_is_zero():
    config = small_config()
    config.gradient_penalty.weight = 0.0
    mix = Mix(KNOWN, KNOWN, ALPHA)
    assert adversarial.lazy_penalty(None, config.gradient_penalty, None, 0, mix) == 0


def test_domain_auc_counts_the_pairs_that_are_ranked_rightly():
    rng = np.random.default_rng(0)
    # Few values, so that some pairs tie.
    real, fake = ([rng.integers(0, 3, (n, s, s, 1)).astype(np.float32) for s in (1, 2)] for n in (6, 5))
    scores = [[sum(float(x[i].mean()) for x in logits) for i in range(len(logits[0]))] for logits in (real, fake)]
    want = np.mean([1.0 if r > f else 0.5 if r == f else 0.0 for r in scores[0] for f in scores[1]])
    assert 0 < want < 1
    np.testing.assert_allclose(adversarial.domain_auc(real, fake), want, rtol=1e-6)
    assert adversarial.domain_auc([np.ones((2, 1, 1, 1))], [np.zeros((3, 1, 1, 1))]) == 1


@pytest.mark.parametrize("name, hyper", [("resnet", {"ngf": 2, "n_blocks": 1}), ("unet", {"ngf": 2, "num_downs": 2})])
def test_a_generator_of_one_scale_is_judged_at_three(name, hyper):
    networks = SMALL | {"generator": models.create(name, norm="instance", **hyper)}
    photos = jax.ShapeDtypeStruct((4, 48, 48, 3), jnp.float32)
    config = small_config()
    config.update(crop=48, ema=0.0)
    method = small_method(config)._replace(networks=networks)
    state = jax.eval_shape(lambda key: blur2blur.init(method, key), KEY)
    step = functools.partial(update, method)
    new, metrics = jax.eval_shape(step, state, {}, Photos(photos, photos, ALPHA))
    assert jax.tree.structure(new) == jax.tree.structure(state) and metrics["loss_g"].shape == ()


@pytest.mark.parametrize(
    "name, hyper, message",
    [
        ("resnet", {"ngf": 2, "n_blocks": 1, "norm": "batch"}, "batch norm"),
        ("resnet", {"ngf": 2, "n_blocks": 1, "use_dropout": True}, "dropout"),
        ("mimo_unet", {"base_channels": 8, "num_res": 0, "dropout": 0.1}, "dropout"),
    ],
)
def test_what_a_generator_may_not_have_is_told_before(name, hyper, message):
    with pytest.raises(UserError, match=message):
        translator.check_generator(models.create(name, **hyper), 16)


# ---- full size ----


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(demo.get_config("gpu"), id="demo:gpu", marks=pytest.mark.slow),
        pytest.param(reds.get_config(), id="reds"),
    ],
)
def test_full_size_steps_keep_the_state_s_shapes_and_types_in_bfloat16(config):
    """Traced, not run: the paper's networks, its VGG19 and its batch."""
    config, photo = config.translator, jax.ShapeDtypeStruct((16, 256, 256, 3), jnp.uint8)
    networks = {n: models.create(**config[n].to_dict(), dtype=jnp.bfloat16) for n in ("generator", "discriminator")}
    adams, extractor = blur2blur.optimizers(config.optimizer, config.steps), models.create("vgg", dtype=jnp.bfloat16)
    content = blur2blur.make_content(config.content.kind, extractor)
    method = Blur2Blur(networks, adams, content, config)
    state = jax.eval_shape(lambda key: blur2blur.init(method, key), KEY)
    frozen = {"vgg": jax.eval_shape(extractor.init, KEY, jnp.zeros((1, 32, 32, 3)))}
    step = blur2blur.make_step(method, known_blur.make(None))
    new, metrics = jax.eval_shape(step, state, frozen, {"unknown_blur": photo, "known_blur": photo}, KEY)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    for x, y in zip(jax.tree.leaves(new), jax.tree.leaves(state), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
    assert {x.dtype for x in metrics.values()} == {jnp.dtype("float32")}
    assert sum(x.size for x in jax.tree.leaves(state.params["generator"])) == 6_807_171
