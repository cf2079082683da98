"""A network is a module and its variables: read from disk, set to its compute dtype, applied to images.

Images are NHWC float32 in [0, 1]; what a network's stride does not divide is padded with the image's own pixels.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax import models, weights
from b2b_jax.errors import UserError
from b2b_jax.files import read_json, read_object, write_json
from b2b_jax.models.bank import hyper_of
from b2b_jax.models.consistent import Consistent, Held
from b2b_jax.models.nafnet import NAFNet
from b2b_jax.models.outputs import apply as apply
from b2b_jax.models.outputs import full_resolution as full_resolution
from b2b_jax.named import WEIGHTS as WEIGHTS

Array = jax.Array
DTYPES = ("auto", "float32", "bfloat16")
MADE = "weights.json"  # in a run's folder: the SHA-256 of every network that it made, by the network's folder in it


# Where a run's configuration describes what a stage trains: the key in the stage's section.
TRAINED = {
    **{"deblurrer": "network", "blur_extractor": "network", "camera": "network", "denoiser": "network"},
    "translator": "generator",
}


class Network(NamedTuple):
    """A network and its weights, ready to run."""

    module: nn.Module
    variables: Any


def check_there(path: Path) -> None:
    """UserError when there is no file at `path`."""
    if not path.is_file():
        raise UserError(f"No weights at {path}; train the stage first, or convert a .pth with b2b_jax.convert")


def load(path: Path, dtype: jnp.dtype) -> Network:
    """Reads a network from its .safetensors file; UserError when it is missing, damaged or not one of ours.

    Parameters are float32, whatever precision the file has; `dtype` is what the network computes in.
    """
    try:
        check_there(path)
        module, variables = weights.load(path)
    except (ValueError, OSError, MemoryError) as error:
        raise UserError(str(error) or f"{path}: not enough memory") from error
    variables = jax.tree.map(lambda array: array.astype(np.float32, copy=False), variables)
    return Network(module.clone(dtype=dtype), jax.device_put(variables))


def export(workdir: Path, name: str, hyper: Mapping[str, Any], variables: Any, step: float = 0.0) -> None:
    """Writes a network that a run made to its folder `name` there: the mark that a stage is finished.

    hyper: its hyper-parameters and, under "name", which network it is. step: as in `weights.save`.
    Its SHA-256 is kept first, so that no network lies there without one.
    """
    told, folder = dict(hyper), workdir / name

    def keep(digest: str) -> None:
        write_json(workdir / MADE, read_object(workdir / MADE) | {name: digest})

    weights.save(folder / WEIGHTS, told.pop("name"), told, variables, stage=folder.name, step=step, announce=keep)


def check_made(workdir: Path, name: str) -> None:
    """UserError unless the network in the run's folder `name` is the one that the run made; older runs kept no record.

    That its bytes are as they were written is `load`'s matter.
    """
    path, record = workdir / name / WEIGHTS, workdir / MADE
    made = read_json(record)
    if record.exists() and not (isinstance(made, dict) and all(isinstance(x, str) for x in made.values())):
        raise UserError(f"{record} is damaged: put back a copy, or delete it to do without that check of the networks")
    try:
        digest = weights.header(path).get("sha256")
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    if made and name in made and digest != made[name]:
        raise UserError(
            f"{path} is not the network that the run made, as its SHA-256 in {MADE} tells: put it back, or delete "
            f"{workdir / Path(name).parts[0] / WEIGHTS}, and the run makes it anew from the stage's last checkpoint"
        )


def check_stage(path: Path, config: Mapping[str, Any]) -> None:
    """UserError unless the weights of a run's own stage, the folder that they lie in, are those that it trained.

    config: the run's, of which older files are compared with the network alone. That their bytes are as they were
    written is `load`'s matter.
    """
    stage, wrong = path.parent.name, ""
    try:
        told = weights.header(path)
        if told.get("stage", stage) != stage:
            wrong = f"is the file of the stage {told['stage']}"
        elif stage in TRAINED and stage in config and TRAINED[stage] in config[stage]:
            hyper = _trained(config[stage], TRAINED[stage], told["hyper"])
            if _tensors_of(told["model"], told["hyper"]) != _tensors_of(hyper.pop("name"), hyper):
                wrong = f"holds another network than the run's configuration, {told['model']} {told['hyper']}"
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    if wrong:
        raise UserError(
            f"{path} {wrong}: put back the file of the {stage}, or delete it, and the run makes it anew from its last "
            "checkpoint"
        )
    check_made(path.parent.parent, stage)


def _trained(section: Mapping[str, Any], network: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """The name and hyper-parameters of the network that a stage trains; a bank has as many shots as were found."""
    hyper = dict(section[network])
    if section.get("learner") != "likelihood":
        return hyper
    return hyper_of(hyper, told.get("count", 0), told.get("jpeg", False))


def _tensors_of(name: str, hyper: Mapping[str, Any]) -> nn.Module:
    """The module, but for how a NAFNet takes its means, which its tensors do not depend on."""
    module = models.create(name, **hyper)
    return module.clone(local=False, train_size=0) if isinstance(module, NAFNet) else module


def consistent(mixture: Network, deblurrer: Network) -> Network:
    """The deblurrer behind a kernel mixture, its result made to agree with the photo."""
    module = Consistent(mixture.module, deblurrer.module, dtype=deblurrer.module.dtype)
    return Network(module, _of_both(mixture, deblurrer))


def held(mixture: Network, adapted: Network, step: float) -> Network:
    """A deblurrer adapted to the camera, its result moved by `step` towards agreement with the photo."""
    module = Held(mixture.module, adapted.module, step, dtype=adapted.module.dtype)
    return Network(module, _of_both(mixture, adapted))


def agreed_step(path: Path) -> float:
    """The `step` of `weights.save` in a file of ours; 0 where it has none. Raises what `weights.header` does."""
    return weights.header(path).get("step", 0.0)


def _of_both(mixture: Network, deblurrer: Network) -> dict:
    parts = {"mixture": mixture.variables, "deblurrer": deblurrer.variables}
    kinds = sorted({kind for variables in parts.values() for kind in variables})
    return {kind: {name: part[kind] for name, part in parts.items() if kind in part} for kind in kinds}


def compute_dtype(name: str) -> jnp.dtype:
    """What networks compute in; "auto" is bfloat16, but float32 on a CPU, which has no fast bfloat16.

    UserError: it is none of DTYPES; float16 would overflow in NAFNet.
    """
    if name not in DTYPES:
        raise UserError(f"dtype is {name!r}; it can be {', '.join(DTYPES)}")
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def with_local_means(network: Network, local: bool, train_size: int) -> Network:
    """A NAFNet with or without its test-time local converter for crops of `train_size`; any other network as it is."""
    if not isinstance(network.module, NAFNet):
        return network
    return network._replace(module=network.module.clone(local=local, train_size=train_size))


def runner(network: Network) -> Callable[[Array], Array]:
    """`apply` compiled for one network; the weights are an argument of the program, not part of it."""
    compiled = jax.jit(lambda variables, images: apply(network.module, variables, images))
    return lambda images: compiled(network.variables, images)
