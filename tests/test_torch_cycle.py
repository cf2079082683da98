"""Three steps of CycleGAN and of DualGAN against their twins in PyTorch, from equal weights. Needs PyTorch."""

import functools

import jax
import numpy as np
import pytest
from helpers import assert_close, jit
from helpers.networks import KEY, random_variables

from b2b_jax import foreign, models
from b2b_jax.method import cycle
from b2b_jax.method.cycle import DISCRIMINATORS, GENERATORS, Cycle, Photos
from b2b_jax.training import optimizers
from b2b_jax.training import state as states
from configs import baselines, default

torch = pytest.importorskip("torch")

from helpers import torch_cycle  # noqa: E402

from tools.bench import torch_networks  # noqa: E402

STEPS, CROP, COUNT = 3, 32, 2


def settings(kind):
    """The published settings with small networks."""
    config = default.cycle()
    if kind == "dualgan":
        baselines.published_dualgan(config)
        config.generator.update(num_downs=3, ngf=4, dropout=0.0)
        config.critics = 2
    else:
        config.generator.update(n_blocks=1, ngf=4)
    config.discriminator.update(ndf=4, n_layers=2)
    config.update(crop=CROP, batch=COUNT)
    return config


def create(config):
    parts = dict.fromkeys(GENERATORS, config.generator) | dict.fromkeys(DISCRIMINATORS, config.discriminator)
    networks = {name: models.create(**hyper.to_dict()) for name, hyper in parts.items()}
    method = Cycle(networks, optimizers.create(config.optimizer, config.steps), config)
    start = {name: random_variables(network, np.zeros((1, CROP, CROP, 3))) for name, network in networks.items()}
    state = jax.eval_shape(lambda: cycle.init(method, KEY))
    fresh = states.create(start, dict.fromkeys(start, method.optimizer))
    pools = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state.memory)
    return method, fresh.replace(memory=pools)


def rounds(config, step):
    """New photos for every update of the discriminators."""
    rng = np.random.default_rng(step)
    return [Photos(*rng.random((2, COUNT, CROP, CROP, 3), np.float32)) for _ in range(config.critics)]


def twins(config, state):
    made = {
        "cyclegan": lambda: torch_cycle.ResNet(4, 1),
        "dualgan": lambda: torch_cycle.UNet(4, 3),
    }[config.kind]
    nets = {name: made() for name in GENERATORS}
    nets |= {name: torch_networks.PatchGAN(4, 2, "instance", "rgb") for name in DISCRIMINATORS}
    for name, net in nets.items():
        arrays = foreign.to_torch_state(state.params[name])
        net.load_state_dict({key: torch.from_numpy(x) for key, x in arrays.items()})
    groups = {"generators": [p for name in GENERATORS for p in nets[name].parameters()]}
    groups |= {name: list(nets[name].parameters()) for name in DISCRIMINATORS}
    rate, settings = config.optimizer.learning_rate, config.optimizer
    make = {
        "cyclegan": lambda group: torch.optim.Adam(group, rate, tuple(settings.betas)),
        "dualgan": lambda group: torch_cycle.RMSprop(group, rate, settings.rho),
    }[config.kind]
    return nets, {name: make(group) for name, group in groups.items()}


def signed(x):
    return torch.from_numpy(np.moveaxis(2 * x - 1, -1, 1).copy())


@pytest.mark.parametrize("kind", ["cyclegan", "dualgan"])
def test_losses_and_weights_of_three_steps_are_those_of_pytorch(kind):
    config = settings(kind)
    method, state = create(config)
    start, (nets, optimizer) = state.params, twins(config, state)
    step = jit(functools.partial(cycle.update, method))
    rule = {"cyclegan": {}, "dualgan": {"clip": config.clip}}[kind]
    for number in range(STEPS):
        photos = rounds(config, number)
        state, metrics = step(state, photos, KEY)
        theirs = [tuple(map(signed, one)) for one in photos]
        loss_weights = (config.cycle_weight, config.identity_weight)
        wanted = getattr(torch_cycle, kind)(nets, optimizer, theirs, loss_weights, **rule)
        for name, value in wanted.items():
            assert_close(metrics[name], value, tol=1e-4)
    for name, net in nets.items():
        got, before = (foreign.to_torch_state(params[name]) for params in (state.params, start))
        after = {key: x.detach().numpy() for key, x in net.state_dict().items()}
        # In front of an instance norm the gradient of a bias is zero but for rounding, which optimisers enlarge.
        keys = [key for key in after if key.endswith("weight")]
        error = np.sqrt(sum(np.square(got[key] - after[key]).sum() for key in keys))
        moved = np.sqrt(sum(np.square(after[key] - before[key]).sum() for key in keys))
        assert moved > 0 and error <= 0.01 * moved, name
