"""Deblurring in PyTorch, equal in value to `b2b_jax.networks.apply`: what the benchmark compares with.

    pip install torch && python tools/benchmark.py deblur --config configs/demo.py --against torch

Networks lie in memory as PyTorch runs them fastest on a CPU (channels_last). Photos here are NHWC float32 in [0, 1].
"""

from collections.abc import Callable

import numpy as np
import torch
from flax import linen as nn

from b2b_jax import foreign, models
from b2b_jax.errors import UserError
from b2b_jax.networks import Network
from tools.bench.torch_nafnet import NAFNet
from tools.bench.torch_networks import MIMOUNet

Run = Callable[[np.ndarray], torch.Tensor]


def runs(network: Network, dtype: str) -> dict[str, Run]:
    """The network, eager and compiled, as functions of photos that return (n, h, w, 3) when it is computed.

    dtype: of the activations, by its name. UserError: a network of another kind, or one with local means.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = twin(network.module)
    state = foreign.to_torch_state(network.variables)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    module = module.eval().to(device, memory_format=torch.channels_last)

    def run(function: Callable, photos: np.ndarray) -> torch.Tensor:
        cast = torch.autocast(device, getattr(torch, dtype), enabled=dtype != "float32")
        with torch.inference_mode(), cast:
            y = function(torch.from_numpy(photos).to(device).permute(0, 3, 1, 2))
            y = (y[-1] if isinstance(y, list) else y).float().clamp(0, 1).permute(0, 2, 3, 1)
        if device == "cuda":
            torch.cuda.synchronize()
        return y

    functions = {"PyTorch, eager": module, "PyTorch, torch.compile": torch.compile(module)}
    return {name: lambda photos, function=function: run(function, photos) for name, function in functions.items()}


def twin(module: nn.Module) -> torch.nn.Module:
    """The same network in PyTorch; UserError when there is none."""
    if isinstance(module, models.MIMOUNet):
        return MIMOUNet(module.base_channels, module.num_res)
    if isinstance(module, models.NAFNet) and not module.local:
        return NAFNet(module.width, module.encoders, module.middle, module.decoders, module.unshuffle)
    advice = "; add --config.deblurrer.network.local=False" if isinstance(module, models.NAFNet) else ""
    raise UserError(
        f"--against=torch knows MIMOUNet, and NAFNet without local means, not this {type(module).__name__}{advice}"
    )
