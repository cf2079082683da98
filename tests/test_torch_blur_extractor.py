"""The blur extractor's training step against PyTorch's autograd and Adam. Needs PyTorch."""

import functools

import jax
import numpy as np
import optax
import pytest
from helpers import assert_close, jit, nhwc, reference
from helpers.networks import KEY
from helpers.parity import golden, network

from b2b_jax import foreign
from b2b_jax.formats import torch_files
from b2b_jax.method import blur_extractor
from b2b_jax.training import optimizers
from b2b_jax.training import state as states
from configs import default

torch = pytest.importorskip("torch")

from helpers import torch_kernel_wizard  # noqa: E402

FIXTURE = "kernel_wizard/kw_nf4_vae_module"
STEPS = 3


@pytest.fixture
def published():
    """The reference network in PyTorch, in float64."""
    module, _ = network(FIXTURE)
    sizes = ("nf", "kernel_dim", "front_blocks", "back_blocks", "kernel_blocks")
    twin = torch_kernel_wizard.KernelWizard(*(getattr(module, size) for size in sizes))
    state = torch_files.state_dict(torch_files.read(reference(f"{FIXTURE}.pth")))
    twin.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
    return twin.double()


def photo(name):
    return torch.from_numpy(np.moveaxis(golden(FIXTURE)[f"{name}_u8_hwc"], -1, 0)[None] / 255)


def test_the_network_in_pytorch_is_the_published_one(published):
    data = golden(FIXTURE)
    with torch.no_grad():
        mean, sigma = published.extract(photo("sharp"), photo("blur"))
        adapted = published.adapt(photo("target"), mean + sigma * torch.from_numpy(data["eps"]))
    found = {"kernel_mean": mean, "kernel_sigma": sigma, "adapted_every2nd": adapted[:, :, ::2, ::2]}
    for name, got in found.items():
        assert_close(got.numpy(), data[name], tol=1e-6)


def ours(config):
    """The loss and the new state of each step."""
    data, (module, variables) = golden(FIXTURE), network(FIXTURE)
    adam = optimizers.create(config.optimizer, config.steps)
    step = jit(functools.partial(blur_extractor.make_step(module, adam, config), frozen={}))
    state = states.create({"blur_extractor": variables}, {"blur_extractor": adam})
    batch = {"sharp": data["sharp_u8_hwc"][None], "blurry": data["blur_u8_hwc"][None]}
    with jax.default_matmul_precision("float32"):
        for _ in range(STEPS):
            state, metrics = step(state, batch=batch, key=KEY)
            yield metrics["loss"], state


def noise(number):
    """What the step of this number draws for its code."""
    key, shape = jax.random.fold_in(jax.random.fold_in(KEY, number), 1), nhwc(golden(FIXTURE)["eps"]).shape
    return torch.from_numpy(np.moveaxis(np.asarray(jax.random.normal(key, shape), np.float64), -1, 1).copy())


def test_losses_gradients_and_weights_of_three_steps_are_those_of_pytorch(published):
    """From the reference weights, on the reference pair, by the default optimiser; codes are drawn, with divergence."""
    config = default.blur_extractor()
    config.update(augment=False, kl_weight=10.0)
    betas = config.optimizer.betas
    adam = torch.optim.Adam(published.parameters(), config.optimizer.learning_rate, betas)
    parameters = {name: (p, p.detach().numpy().copy()) for name, p in published.named_parameters()}
    for number, (loss, state) in enumerate(ours(config)):
        wanted = torch_kernel_wizard.loss(published, photo("sharp"), photo("blur"), noise(number), config.kl_weight)
        adam.zero_grad()
        wanted.backward()
        adam.step()
        np.testing.assert_allclose(loss, wanted.item(), rtol=1e-5)
        if number == 0:
            mean = foreign.to_torch_state(optax.tree.get(state.opt_state["blur_extractor"], "mu"))
            for name, (p, _) in parameters.items():
                gradient = mean[name] / (1 - betas[0])  # Adam's first mean is the gradient, times 1 - beta
                assert np.abs(gradient - p.grad.numpy()).max() <= 0.01 * p.grad.abs().max(), name
        after = foreign.to_torch_state(state.params["blur_extractor"])
        error = sum(np.square(after[name] - p.detach().numpy()).sum() for name, (p, _) in parameters.items())
        moved = sum(np.square(p.detach().numpy() - start).sum() for p, start in parameters.values())
        assert error <= 0.05**2 * moved
