"""CycleGAN and DualGAN: their pool, the order of their updates, and a run that is killed and resumed.

Run as a program, this file trains on four devices and on one, and prints how far they are apart. NHWC images in [0, 1].
"""

import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FLAGS, jit
from helpers.networks import KEY
from jax.sharding import AxisType
from safetensors.numpy import load_file

from b2b_jax import sharding
from b2b_jax.data import pipeline
from b2b_jax.data.sources import ArraySource
from b2b_jax.method import cycle
from b2b_jax.method.cycle import DISCRIMINATORS, GENERATORS, Cycle, Photos
from b2b_jax.models import create
from b2b_jax.training import loop, optimizers
from configs import baselines, default

CROP = 16
ROOT = Path(__file__).parents[1]


def small(kind="cyclegan"):
    """Settings and networks that compile quickly; the pool is soon full."""
    config = default.cycle()
    if kind == "dualgan":
        baselines.published_dualgan(config)
        config.generator.update(num_downs=2, ngf=2)
    else:
        config.generator.update(n_blocks=0, ngf=2)
    config.discriminator.update(ndf=2, n_layers=1, norm="none")
    config.update(crop=CROP, batch=2, pool=3 * bool(config.pool))
    parts = dict.fromkeys(GENERATORS, config.generator) | dict.fromkeys(DISCRIMINATORS, config.discriminator)
    networks = {name: create(**hyper.to_dict()) for name, hyper in parts.items()}
    return Cycle(networks, optimizers.create(config.optimizer, 10), config)


def fresh_state(method):
    return jit(functools.partial(cycle.init, method))(KEY)


def bytes_of(method, seed=0):
    shape = (method.config.batch * method.config.critics, CROP, CROP, 3)
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 256, shape, np.uint8) for name in ("unknown_blur", "unknown_sharp")}


# ---------------------------------------------------------------------------------------------------------------- pool


def slow_pool(size, images, keys):
    """What CycleGAN's pool gives back, with a Python list."""
    kept, given = [], []
    for image, key in zip(images, keys, strict=True):
        key_place, key_coin = jax.random.split(key)
        if len(kept) < size:
            kept.append(image)
            given.append(image)
        elif jax.random.bernoulli(key_coin):
            place = int(jax.random.randint(key_place, (), 0, size))
            given.append(kept[place])
            kept[place] = image
        else:
            given.append(image)
    return kept, given


def test_the_pool_is_a_list_of_earlier_fakes():
    size, images = 4, np.arange(24, dtype=np.float32).reshape(24, 1, 1, 1) * np.ones((1, 2, 2, 3), np.float32)
    pool, given = {"images": jnp.zeros((size, 2, 2, 3)), "count": jnp.zeros((), jnp.int32)}, []
    for number in range(3):
        part, key = images[8 * number : 8 * number + 8], jax.random.fold_in(KEY, number)
        pool, out = jit(cycle.exchanged)(pool, part, key)
        given += list(np.asarray(out))
    keys = [key for number in range(3) for key in jax.random.split(jax.random.fold_in(KEY, number), 8)]
    kept, wanted = slow_pool(size, images, keys)
    np.testing.assert_array_equal(given, wanted)
    np.testing.assert_array_equal(pool["images"], kept)
    assert pool["count"] == size and 3 < sum(np.any(a != b) for a, b in zip(given, images, strict=True)) < 17


# ---------------------------------------------------------------------------------------------------------------- step


@pytest.mark.parametrize("kind", ["cyclegan", "dualgan"])
def test_a_step_trains_all_four_and_counts(kind):
    method = small(kind)
    state = fresh_state(method)
    new, metrics = jit(cycle.make_step(method))(state, {}, bytes_of(method), KEY)
    for name, params in new.params.items():
        moved = [bool(np.any(a != b)) for a, b in zip(*map(jax.tree.leaves, (params, state.params[name])), strict=True)]
        assert np.mean(moved) > 0.7, name
    assert int(new.step) == 1 and int(new.skipped) == 0 and np.all(np.isfinite(list(metrics.values())))
    assert {"loss_d", "loss_g", "g_cycle", "d_auc"} <= set(metrics) and ("g_identity" in metrics) == (
        kind == "cyclegan"
    )
    if kind == "dualgan":
        largest = max(float(jnp.abs(x).max()) for name in DISCRIMINATORS for x in jax.tree.leaves(new.params[name]))
        assert largest <= method.config.clip and not new.memory
    else:
        assert all(int(pool["count"]) == 2 for pool in new.memory.values())


@pytest.mark.parametrize(("kind", "same"), [("cyclegan", True), ("dualgan", False)])
def test_generators_face_discriminators_of_before_or_after_their_update(kind, same):
    """With other discriminator photos alone, CycleGAN's generators move alike, DualGAN's otherwise."""
    method = small(kind)
    state, rng = fresh_state(method), np.random.default_rng(0)
    photos = Photos(*rng.random((2, 2, CROP, CROP, 3), np.float32))
    update = jit(lambda state, first, last: cycle.update(method, state, [first, last], KEY)[0].params["to_sharp"])
    (a, b) = (update(state, Photos(*(x * scale for x in photos)), photos) for scale in (1.0, 0.5))
    leaves = zip(*map(jax.tree.leaves, (a, b)), strict=True)
    assert all(np.array_equal(x, y) for x, y in leaves) == same


def test_a_device_holds_a_share_of_every_round():
    photos = Photos(np.arange(6), np.arange(6))
    assert [one.b.tolist() for one in cycle.parts(photos, 3)] == [[0, 3], [1, 4], [2, 5]]


# ------------------------------------------------------------------------------------------------------------- devices


def on_devices(devices, kind):
    """The metrics of three steps, and the pools after them."""
    method = small(kind)
    method.config.batch = 4
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    copies, parts = sharding.replicated(mesh), sharding.split(mesh)
    body = cycle.make_step(method)
    step = jax.jit(body, in_shardings=(copies, copies, parts, copies), out_shardings=(copies, copies))
    state, found = jax.device_put(fresh_state(method), copies), []
    for seed in range(3):
        state, metrics = step(state, {}, sharding.to_devices(bytes_of(method, seed), mesh), jax.device_put(KEY, copies))
        found.append({name: float(value) for name, value in metrics.items()})
    return found, [np.asarray(pool["images"]) for pool in state.memory.values()]


def main():
    distances = []
    for kind in ("cyclegan", "dualgan"):
        many, one = (on_devices(devices, kind) for devices in (jax.devices(), jax.devices()[:1]))
        for a, b in zip(many[0], one[0], strict=True):
            distances += [abs(a[name] - b[name]) / max(1, abs(b[name])) for name in b if name != "d_auc"]
        distances += [float(np.abs(a - b).max()) for a, b in zip(many[1], one[1], strict=True)]
    print(json.dumps({"devices": jax.device_count(), "largest": max(distances), "count": len(distances)}))


@pytest.mark.slow
def test_four_devices_train_as_one():
    devices = "--xla_force_host_platform_device_count=4"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = os.environ | {"XLA_FLAGS": f"{devices} {FLAGS}", "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths}
    run = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["devices"] == 4 and found["count"] > 30 and found["largest"] < 1e-5


# -------------------------------------------------------------------------------------------------------------- resume


class Killed(Exception):
    """What ends a run here."""


def train(folder, method, dies_at=0):
    settings = default.get_config()
    settings.loop.update(log_every=1, evaluate_every=1, checkpoint_every=3)

    def evaluate(state):
        if int(state.step) == dies_at:
            raise Killed
        return {}, {"photo": np.zeros((1, 2, 2, 3))}

    photos = np.random.default_rng(1).integers(0, 256, (5, 20, 20, 3), np.uint8)
    names = ("unknown_blur", "unknown_sharp")
    streams = [
        pipeline.rename(pipeline.stream(ArraySource(name, image=photos), pipeline.Crop(CROP), i), {"image": name})
        for i, name in enumerate(names)
    ]
    batch = method.config.batch * method.config.critics
    init = lambda key: cycle.init(method, key)  # noqa: E731
    task = loop.Task("cycle", 8, batch, init, cycle.make_step(method), {}, evaluate)
    return loop.train(task, pipeline.batches(streams, batch, 0, 1), folder, settings)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits_pool_included(tmp_path):
    method = small()
    train(tmp_path / "whole", method)
    with pytest.raises(Killed):
        train(tmp_path / "killed", method, dies_at=5)
    assert (tmp_path / "killed" / "checkpoints" / "3").is_dir()
    train(tmp_path / "killed", method)
    hashes = [
        json.loads((tmp_path / run / "checkpoints" / "8" / "hashes" / "metadata").read_text())
        for run in ("whole", "killed")
    ]
    assert hashes[0] == hashes[1] and "memory/d_sharp/images" in hashes[0]


def start(workdir, data):
    command = [sys.executable, "-m", "b2b_jax.main", "--config=configs/baselines.py:cyclegan,quick"]
    command += [f"--workdir={workdir}", f"--config.data.root={data}", "--config.stages=cycle"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def logged(folder):
    path = folder / "cycle" / "metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.is_file() else []


@pytest.mark.slow
def test_a_command_that_is_killed_ends_with_the_same_bits(tmp_path):
    whole = start(tmp_path / "whole", tmp_path)
    assert whole.wait(timeout=900) == 0, whole.stdout.read()
    process = start(tmp_path / "killed", tmp_path)
    while 15 not in logged(tmp_path / "killed"):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed" / "cycle" / "weights.safetensors").exists()
    again = start(tmp_path / "killed", tmp_path)
    assert again.wait(timeout=900) == 0, again.stdout.read()
    for name in ("weights.safetensors", "to_blurry/weights.safetensors"):
        first, second = (load_file(tmp_path / run / "cycle" / name) for run in ("whole", "killed"))
        assert len(first) > 10 and all(first[key].tobytes() == second[key].tobytes() for key in first)


if __name__ == "__main__":
    main()
