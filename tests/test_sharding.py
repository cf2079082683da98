"""Devices: eight of them train as one does, and frozen networks stay arguments. NHWC images in [0, 1].

Processes: what becomes of the others where one of them meets a mistake.

Run as a program, this file is the run that the first tests start with eight devices; it prints what it measured.
"""

import dataclasses
import json
import math
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FLAGS
from helpers.networks import random_variables
from helpers.processes import free_port
from jax.sharding import AxisType, Mesh

from b2b_jax import models, sharding
from b2b_jax.errors import UserError
from b2b_jax.method import blur2blur, known_blur
from b2b_jax.method.blur2blur import Blur2Blur
from b2b_jax.models import layers, vgg
from b2b_jax.training import state as states
from configs import default

ROOT = Path(__file__).parents[1]
STEPS, BATCH, CROP = 3, 8, 32
DEVICES = "--xla_force_host_platform_device_count=8"
COLLECTIVES = (
    *("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute", "collective-broadcast"),
    *("ragged-all-to-all", "send", "recv"),
)
NETWORKS = {
    "generator": models.create("mimo_unet", base_channels=4, num_res=0),
    # Without norm: the biases in front of one have no gradient but rounding, which Adam makes as large as any other.
    "discriminator": models.create("patchgan", ndf=4, n_layers=1, norm="none"),
}
# As salloc opens it on a node: one process, of a job in which eight could be started.
SHELL = {"SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"}


def config_and_adams():
    config = default.translator()
    config.curriculum.grow_from, config.curriculum.full_at = 0, 4
    return config, blur2blur.optimizers(config.optimizer, config.steps)


def batches() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    names = ("unknown_blur", "known_blur")
    return [{k: rng.integers(0, 256, (BATCH, CROP, CROP, 3), np.uint8) for k in names} for _ in range(STEPS)]


def train(mesh: Mesh) -> tuple[dict, dict]:
    """Three steps as in the training loop: the networks' weights, and facts about the devices."""
    config, adams = config_and_adams()
    copies, parts = sharding.replicated(mesh), sharding.split(mesh)
    key = jax.device_put(jax.random.key(0), copies)
    content = blur2blur.make_content("pooled", None)
    body = blur2blur.make_step(Blur2Blur(NETWORKS, adams, content, config), known_blur.make(None))
    step = jax.jit(body, in_shardings=(copies, copies, parts, copies), out_shardings=(copies, copies), donate_argnums=0)
    params = {name: random_variables(net, jnp.zeros((1, CROP, CROP, 3))) for name, net in NETWORKS.items()}
    state = jax.device_put(states.create(params, adams, ("generator",)), copies)
    first = jax.tree.leaves(state.params)
    program = step.lower(state, {}, sharding.to_devices(batches()[0], mesh), key).compile()
    for photos in batches():
        photos = sharding.to_devices(photos, mesh)
        state, _ = program(state, {}, photos, key)
    facts = {
        "shards": [shard.data.shape[0] for shard in photos["unknown_blur"].addressable_shards],
        "copies": min(len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)),
        "donated": all(leaf.is_deleted() for leaf in first),
        "step": int(state.step),
        "skipped": int(state.skipped),
        "collectives": collectives(program.as_text()),
        "sizes": {name: [x.size for x in jax.tree.leaves(net)] for name, net in params.items()},
    }
    return jax.device_get({"params": state.params, "ema": state.ema}), facts


def collectives(program: str) -> list[tuple[str, list[int]]]:
    """What the devices tell one another: each operation, and the sizes on one device of the arrays that it takes."""
    found = re.findall(rf"= (.*) ({'|'.join(COLLECTIVES)})(?:-start)?\(", program)
    shapes = [(operation, re.findall(r"\w\d+\[([\d,]*)\]", arrays)) for arrays, operation in found]
    return [(operation, [math.prod(int(n) for n in x.split(",") if n) for x in of]) for operation, of in shapes]


def main() -> None:
    one = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    (many, facts), (single, _) = train(sharding.make_mesh()), train(one)
    errors = jax.tree.map(lambda x, y: float(np.linalg.norm(x - y) / np.linalg.norm(y)), many, single)
    print(json.dumps(facts | {"error": max(jax.tree.leaves(errors))}))


@pytest.fixture(scope="module")
def facts() -> dict:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = os.environ | {"XLA_FLAGS": f"{DEVICES} {FLAGS}", "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths}
    run = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_eight_devices_train_as_one(facts):
    assert facts["shards"] == [1] * 8
    assert facts["copies"] == 8
    assert facts["donated"]
    assert (facts["step"], facts["skipped"]) == (STEPS, 0)
    assert facts["error"] < 1e-5


@dataclasses.dataclass(frozen=True)
class Chip:
    """What JAX tells of a device: its process, and its slice, which is its host for all but TPUs."""

    id: int
    process_index: int
    slice_index: int
    coords: tuple[int, ...] = (0, 0, 0)
    core_on_chip: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v4"


HOSTS = {
    "two hosts of GPUs": [Chip(i, i // 2, i // 2, platform="gpu", device_kind="NVIDIA H100") for i in range(4)],
    "two slices of TPUs": [Chip(i, i // 4, i // 4, (i % 2, i // 2 % 2, 0)) for i in range(8)],
    "a TPU of four hosts": [Chip(i, i // 4, 0, (i % 2, i // 2 % 2, i // 4)) for i in range(16)],
    "rows of chips": [Chip(4 * y + x, 2 * (y // 2) + x // 2, 0, (x, y, 0)) for y in range(4) for x in range(4)],
}


@pytest.mark.parametrize("hosts", HOSTS)
def test_a_batch_is_its_processes_parts_in_order_on_any_hosts(hosts):
    mesh = sharding.make_mesh(HOSTS[hosts])
    processes = [chip.process_index for chip in mesh.devices]
    assert processes == sorted(processes) and len(processes) == len(HOSTS[hosts])
    assert mesh.axis_names == ("data",)


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "8"}, False),  # in the batch script: nobody started eight of us
        ({"SLURM_PROCID": "3", "SLURM_STEP_NODELIST": "a[1-2]", "SLURM_NTASKS": "8"}, True),
        (SHELL, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        (SHELL | {"OMPI_COMM_WORLD_SIZE": "2"}, True),  # mpirun starts itself on other nodes by a step of one
    ],
)
def test_a_launcher_is_recognised_by_what_it_sets(environment, several):
    assert sharding.several(environment) == several


def test_a_launcher_that_does_not_tell_where_the_first_process_is_asks_for_the_flags(monkeypatch):
    def initialize(**options):
        raise ValueError("coordinator_address should be defined.")  # as JAX does under Open MPI 5

    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(UserError, match=r"coordinator_address should be defined\.\); give --coordinator"):
        sharding.start(None, None, None, 100)


def test_a_process_with_a_folder_of_its_own_is_told(monkeypatch, tmp_path):
    own, shared, told, looked = tmp_path / "own", tmp_path / "shared", [], []
    own.mkdir(), shared.mkdir()

    def as_the_other_process(name):
        monkeypatch.setattr(sharding, "is_first", lambda: False)
        monkeypatch.setattr(sharding, "wait_for_all", looked.append)
        sharding.check_shared(shared, 0)
        with pytest.raises(UserError, match="own is not the first process's folder; all processes must share one"):
            sharding.check_shared(own, 0.1)
        monkeypatch.setattr(sharding, "is_first", lambda: True)

    client = SimpleNamespace(key_value_set=lambda _, it: told.append(it), blocking_key_value_get=lambda *_: told[0])
    monkeypatch.setattr(sharding.distributed.global_state, "client", client)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(sharding, "is_first", lambda: True)
    monkeypatch.setattr(sharding, "wait_for_all", as_the_other_process)
    sharding.check_shared(shared)
    assert len(looked) == 1 and not list(shared.iterdir())


@pytest.mark.parametrize("coordinator", ["localhost", "localhost:", "localhost:abc", "localhost:70000", ":1234"])
def test_what_is_no_host_and_port_is_refused(coordinator):
    with pytest.raises(UserError, match="wanted 0 to N - 1 of N at HOST:PORT"):
        sharding.start(coordinator, 2, 0, 100)


def test_a_port_that_is_taken_is_refused_by_the_first_process():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port}, which cannot be used here: Address already in use"):
            sharding.start(f"localhost:{port}", 2, 0, 100)


def blended_kernels() -> list[list[int]]:
    """The kernels of the generator's blends, each as the sizes of its parts, one for each image that it takes."""
    found = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, layers.Blend):
            found.append([image.shape[-1] * context.module.features for image in args[0]])
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(NETWORKS["generator"].init, jax.random.key(0), jnp.zeros((1, CROP, CROP, 3)))
    return found


def test_devices_sum_each_networks_gradients_once(facts):
    sums = [Counter(sizes) for operation, sizes in facts["collectives"] if operation == "all-reduce"]
    for each in sums:
        del each[1]  # losses, and the one bias of the discriminator's logits
    discriminator, generator = sorted(filter(None, sums), key=Counter.total)
    sizes = {name: Counter(n for n in facts["sizes"][name] if n > 1) for name in NETWORKS}
    blends = blended_kernels()  # are used in parts, and summed whole or, since JAX 0.12, in these parts
    parts = Counter(n for kernel in blends for n in kernel)
    assert generator in (sizes["generator"], sizes["generator"] - Counter(map(sum, blends)) + parts)
    # The discriminator's are sums over its uses: three scales and the penalty. On a CPU XLA adds them up only after
    # they have crossed.
    assert discriminator.keys() == sizes["discriminator"].keys()
    assert all(discriminator[n] <= 4 * count for n, count in sizes["discriminator"].items())


def test_devices_exchange_nothing_else_of_size(facts):
    largest = max(max(sizes) for operation, sizes in facts["collectives"] if operation != "all-reduce")
    assert largest <= BATCH  # ranks of the curriculum, comparisons of the AUC: numbers per image


def test_frozen_weights_are_arguments_of_the_step_and_not_constants_in_it():
    config, adams = config_and_adams()
    module, key = models.create("vgg", depth=16, layers=vgg.VGG16_RELEASE_LAYERS), jax.random.key(0)
    method = Blur2Blur(NETWORKS, adams, blur2blur.make_content("vgg16", module), config)
    state = jax.eval_shape(lambda key: blur2blur.init(method, key), key)
    extractor = models.create("kernel_wizard", nf=12, kernel_dim=20, reductions=1, back_blocks=1)
    image = jnp.zeros((1, CROP, CROP, 3))
    frozen = {"vgg": module, "blur_extractor": extractor}
    frozen = {name: jax.eval_shape(net.init, key, image) for name, net in frozen.items()}
    photo = jax.ShapeDtypeStruct((1, CROP, CROP, 3), np.uint8)
    batch = dict.fromkeys(("unknown_blur", "known_sharp", "known_blurry", "unknown_sharp"), photo)
    step = blur2blur.make_step(method, known_blur.make(extractor))
    text = jax.jit(step).lower(state, frozen, batch, key).as_text()
    assert jax.tree.structure(jax.eval_shape(step, state, frozen, batch, key)[0]) == jax.tree.structure(state)
    kernels = [x.shape for x in jax.tree.leaves(frozen) if len(x.shape) == 4]
    for h, w, i, o in kernels:
        assert re.search(rf"%arg\d+: tensor<{h}x{w}x{i}x{o}xf32>", text)
    constants = re.findall(r"stablehlo\.constant dense<.*> : tensor<([\dx]+)x\w+>", text)
    assert max(np.prod([int(n) for n in shape.split("x")]) for shape in constants) < 1000


if __name__ == "__main__":
    main()


def test_the_host_s_cpu_computes_and_where_jax_has_none_the_default_device(monkeypatch):
    def none(backend: str) -> list:
        raise RuntimeError(f"Unknown backend {backend}")

    (cpu, *_) = jax.local_devices(backend="cpu")
    assert jax.config.jax_default_device is None
    with sharding.host() as there:
        assert there and jax.config.jax_default_device == cpu
    monkeypatch.setattr(jax, "local_devices", none)
    with sharding.host() as there:
        assert not there and jax.config.jax_default_device is None


ONE_OF_TWO = """
import sys, jax
from b2b_jax import main, sharding
from b2b_jax.errors import UserError

def mistake():
    raise UserError("a mistake")

def run_stages(run):
    sharding.first_alone("look", {look})
    if jax.process_index() == 1:
        mistake()
    sharding.wait_for_all("the next step")

main.run_stages = run_stages
sys.exit(main.main())
"""


@pytest.fixture
def pair(tmp_path):
    """Starts two processes of a run; ends those that are left."""
    started = []

    def start(look):
        command = [sys.executable, "-c", ONE_OF_TWO.format(look=look), "--config=configs/demo.py:quick"]
        command += [f"--workdir={tmp_path}", f"--coordinator=localhost:{free_port()}", "--num_processes=2"]
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        options = {"cwd": ROOT, "env": environment, "stderr": subprocess.PIPE, "text": True}
        started.extend(subprocess.Popen([*command, f"--process_id={number}"], **options) for number in range(2))
        return started

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_process_that_alone_meets_a_mistake_ends_at_once(pair):
    _, second = pair("lambda: None")
    said = second.communicate(timeout=200)[1]
    assert second.returncode == 2 and said == "a mistake\n"


def test_a_mistake_that_all_know_of_ends_all_in_one_line(pair):
    said = [(process.communicate(timeout=200)[1], process.returncode) for process in pair("mistake")]
    assert said == [("a mistake\n", 2)] * 2
