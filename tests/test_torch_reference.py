"""What the benchmark compares with in PyTorch: its losses, weights and photos are ours. Needs PyTorch."""

import jax
import numpy as np
import pytest
from helpers import assert_close, jit
from helpers.networks import random_variables

from b2b_jax import foreign, models
from b2b_jax.errors import UserError
from b2b_jax.method import blur2blur
from b2b_jax.method.blur2blur import Blur2Blur, Photos
from b2b_jax.networks import Network, apply
from b2b_jax.stages.common import VGG_LAYERS
from b2b_jax.training import state as states
from configs import default, demo

torch = pytest.importorskip("torch")

from tools.bench import torch_inference, torch_reference  # noqa: E402

torch.set_num_threads(1)  # its threads wait for one another, which takes long where other tests run

CROP, BATCH = 64, 2
NETWORKS = ("generator", "discriminator")
# In front of an instance norm: the gradient of these biases is zero but for rounding, which Adam enlarges.
NOISE = ("model.2.bias", "model.5.bias")


def published():
    """The paper's step, small: logistic loss, instance norm, VGG16, penalty."""
    config = default.translator()
    config.generator.update(base_channels=4, num_res=1)
    config.discriminator.update(ndf=4, n_layers=2)
    config.content.update(kind="vgg16")
    config.curriculum.start = 1.0
    return config


def of_the_demo():
    """The demo's step, small: hinge loss, gradients as input, pooled content, lazy penalty."""
    config = demo.get_config().translator
    config.generator.update(base_channels=4)
    config.discriminator.update(ndf=4)
    config.gradient_penalty.update(weight=1e-2)
    config.optimizer.warmup = 0
    return config


def photos() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.random(shape, np.float32) for shape in 2 * [(BATCH, CROP, CROP, 3)] + [(BATCH, 1, 1, 1)]]


def ours(config, params, vgg, frozen, steps):
    networks = {name: models.create(**config[name].to_dict()) for name in NETWORKS}
    adams = blur2blur.optimizers(config.optimizer, config.steps)
    content = blur2blur.make_content(config.content.kind, vgg)
    method = Blur2Blur(networks, adams, content, config)

    @jit
    def step(state, frozen, *photos):
        new, metrics = blur2blur.update(method, state, frozen, Photos(*photos))
        return states.finished(new, state, config.ema), metrics

    state, metrics = states.create(params, adams, ("generator",)), {}
    for _ in range(steps):
        state, metrics = step(state, frozen, *photos())
    return state, metrics


def theirs(config, params, frozen, steps):
    step = torch_reference.Step(config, "cpu")
    for name in NETWORKS:
        load(getattr(step, name), params[name])
    if step.vgg:
        load(step.vgg, frozen["vgg"])
    step.average = [p.detach().clone() for p in step.generator.parameters()]
    x = [torch.from_numpy(np.moveaxis(x, -1, 1).copy()) for x in photos()]
    for _ in range(steps):
        losses = step(*x)
    return step, losses


def load(module, variables) -> None:
    module.load_state_dict({k: torch.from_numpy(v) for k, v in foreign.to_torch_state(variables).items()})


def flat(tensors) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in tensors]).astype(np.float64)


@pytest.mark.parametrize("settings", [published, of_the_demo])
def test_losses_and_weights_after_two_steps_are_ours(settings):
    config, x = settings(), np.zeros((1, CROP, CROP, 3), np.float32)
    params = {name: random_variables(models.create(**config[name].to_dict()), x) for name in NETWORKS}
    vgg = models.create("vgg", depth=16, layers=VGG_LAYERS[16]) if config.content.kind == "vgg16" else None
    # Scaled like a trained one's, whose features neither vanish nor overflow.
    frozen = {"vgg": jax.tree.map(lambda w: 0.6 * w / np.sqrt(w[..., 0].size), random_variables(vgg, x))} if vgg else {}
    state, wanted = ours(config, params, vgg, frozen, 2)
    step, got = theirs(config, params, frozen, 2)
    for key, value in got.items():
        assert_close(value.numpy(), wanted[key])
    for name in NETWORKS:
        want, start = foreign.to_torch_state(state.params[name]), foreign.to_torch_state(params[name])
        after = {k: v.numpy() for k, v in getattr(step, name).state_dict().items()}
        keys = [key for key in want if config[name].get("norm") != "instance" or key not in NOISE]
        error = flat(after[k] - want[k] for k in keys)
        assert np.linalg.norm(error) <= 0.01 * np.linalg.norm(flat(want[k] - start[k] for k in keys))
    names = [name for name, _ in step.generator.named_parameters()]
    averages = foreign.to_torch_state(state.ema["generator"])
    error = flat(a.numpy() - averages[name] for name, a in zip(names, step.average, strict=True))
    moved = flat(averages[name] - foreign.to_torch_state(params["generator"])[name] for name in names)
    assert np.linalg.norm(error) <= 0.01 * np.linalg.norm(moved)


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("mimo_unet", {"base_channels": 4, "num_res": 1}),
        ("nafnet", {"width": 4, "encoders": (1, 2), "middle": 1, "decoders": (2, 1)}),
        ("nafnet", {"width": 4, "encoders": (1,), "middle": 2, "decoders": (1,), "unshuffle": 2}),
    ],
)
def test_deblurred_photos_are_ours(name, hyper):
    rng, sides = np.random.default_rng(1), (24, 32) if name == "mimo_unet" else (21, 30)
    x, module = rng.random((2, *sides, 3), np.float32), models.create(name, **hyper)
    variables = jax.tree.map(lambda w: 0.5 * w / np.sqrt(w[..., 0].size), random_variables(module, x))
    wanted = jit(lambda x: apply(module, variables, x))(x)
    got = torch_inference.runs(Network(module, variables), "float32")["PyTorch, eager"](x)
    assert np.abs(wanted - x).mean() > 0.01  # the network does something
    assert_close(got.numpy(), wanted)


def test_a_network_that_it_does_not_know_is_refused():
    with pytest.raises(UserError, match=r"not this NAFNet; add --config.deblurrer.network.local=False"):
        torch_inference.twin(models.create("nafnet", local=True))
    with pytest.raises(UserError, match=r"not this UNet$"):
        torch_inference.twin(models.create("unet"))


def test_a_step_that_it_does_not_know_is_refused_with_the_keys_to_change():
    config = default.get_config()
    with pytest.raises(UserError, match=r"add --config.known_blur.source=paired --config.translator.augment=False"):
        torch_reference.check(config)
    torch_reference.check(demo.get_config())
