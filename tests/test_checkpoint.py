"""Checkpoints: what is saved comes back bit by bit, and no damage passes for it."""

import errno
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from b2b_jax.training import checkpoint
from b2b_jax.training import state as states
from b2b_jax.training.checkpoint import CheckpointError, Checkpoints
from configs import default

STEPS = (2, 4, 6)


def config(**changes):
    """The section `loop`."""
    settings = default.loop()
    settings.update(keep=3, keep_every=0, keep_best=0)
    settings.update(changes)
    return settings


def state_of(step):
    """A small state whose numbers differ from step to step."""
    params = {"a": {"w": jnp.arange(300.0) * step}, "b": {"w": jnp.full((2, 2), step, jnp.bfloat16)}}
    state = states.create(params, dict.fromkeys(params, optax.adam(1e-3)), ("a",))
    return jax.device_put(state.replace(step=jnp.int32(step)), jax.devices()[0])


def save(folder, *steps, scores=None, **changes):
    with Checkpoints(folder, config(**changes)) as checkpoints:
        for step in steps:
            checkpoints.save(state_of(step), step, (scores or {}).get(step, {}))


def restore(folder):
    """The restored state, whatever it is."""
    with Checkpoints(folder, config()) as checkpoints:
        return checkpoints.restore(state_of(0))


def assert_is(state, step):
    for got, want in zip(jax.tree.leaves(state), jax.tree.leaves(state_of(step)), strict=True):
        assert got.dtype == want.dtype and np.asarray(got).tobytes() == np.asarray(want).tobytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of three steps."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    save(folder, *STEPS)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """The same, to be damaged."""
    return shutil.copytree(saved, tmp_path / "checkpoints")


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << (position % 8)
    path.write_bytes(data)


# ----------------------------------------------------------------------------------------------------- what stays whole


def test_the_newest_state_comes_back_bit_by_bit(saved):
    assert_is(restore(saved), 6)


def test_no_checkpoint_is_no_state(tmp_path):
    assert restore(tmp_path / "checkpoints") is None


def test_a_step_lists_the_hashes_of_its_files_and_of_its_arrays(saved):
    step = saved / "6"
    listed = (step / checkpoint.FILES).read_text().splitlines()
    assert len(listed) == len(files(step)) - 1 and all(len(line.split("  ")[0]) == 64 for line in listed)
    arrays = json.loads((step / "hashes" / "metadata").read_text())
    assert len(arrays) == len(jax.tree.leaves(state_of(6)))
    assert arrays["params/a/w"] == checkpoint.hashes({"": np.arange(300, dtype=np.float32) * 6})[""]
    assert arrays["params/a/w"] != checkpoint.hashes({"": np.arange(300, dtype=np.int32) * 6})[""]


def test_the_newest_every_kth_and_the_best_stay(tmp_path):
    scores = {step: {"validation_psnr": -abs(step - 3.0)} for step in (1, 2, 3, 5, 6)}  # 3 is the best, 4 has none
    scores[5] = {"validation_psnr": np.nan}
    kept = {"keep": 2, "keep_every": 4, "keep_best": 1}
    save(tmp_path, 1, 2, 3, 4, scores=scores, **kept)
    save(tmp_path, 5, 6, 7, scores=scores, **kept)  # a later start knows the scores of an earlier one
    assert checkpoint.steps(tmp_path) == [7, 6, 4, 3]


def test_saving_a_step_again_changes_nothing(copy):
    before = {path: path.stat().st_mtime_ns for path in files(copy)}
    save(copy, 6)
    assert {path: path.stat().st_mtime_ns for path in files(copy)} == before


# ---------------------------------------------------------------------------------------------------------- what is not


def damages(path):
    """Every damage to one file."""
    size = path.stat().st_size
    for position in {0, size // 2, size - 1}:
        yield lambda: flip(path, position)  # noqa: B023
    yield lambda: path.write_bytes(b"")
    yield lambda: path.write_bytes(path.read_bytes()[:-1])
    yield lambda: path.write_bytes(path.read_bytes() + b"\0")
    yield path.unlink


def test_any_damage_to_any_file_is_noticed_and_names_it(copy):
    assert not checkpoint.damage(copy / "6")
    count = 0
    for path in files(copy / "6"):
        whole = path.read_bytes()
        for harm in damages(path):
            harm()
            reason, count = checkpoint.damage(copy / "6"), count + 1
            assert reason and (path.name in reason or path.name == checkpoint.FILES), (path, reason)
            path.write_bytes(whole)
    assert count > 70 and not checkpoint.damage(copy / "6")


def data_file(step):
    return max(files(step / "state"), key=lambda path: path.stat().st_size)


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("harm", "good"),
    [
        (lambda folder: flip(data_file(folder / "6"), 100), 4),
        (lambda folder: (folder / "6" / "state" / "_METADATA").write_bytes(b""), 4),
        (lambda folder: (folder / "6" / "metrics" / "metrics").write_bytes(b""), 4),
        (lambda folder: empty(folder / "6"), 4),
        (lambda folder: (folder / "8").mkdir(), 6),
        (lambda folder: (folder / "8").write_text("a file"), 6),
        (lambda folder: [data_file(folder / str(step)).unlink() for step in (4, 6)], 2),
        (lambda folder: (folder / "4" / "metrics" / "metrics").write_bytes(b"{"), 6),
    ],
)
def test_a_damaged_step_is_named_and_the_newest_good_one_used(copy, capsys, harm, good):
    harm(copy)
    bad = {step for step in checkpoint.steps(copy) if checkpoint.damage(copy / str(step))}
    with Checkpoints(copy, config()) as checkpoints:
        assert_is(checkpoints.restore(state_of(0)), good)
        checkpoints.save(state_of(8), 8, {})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(bad) > 0 and all(any(f"{copy / str(step)} is" in x for x in lines) for step in bad)
    assert_is(restore(copy), 8)
    assert bad.isdisjoint(checkpoint.steps(copy)) or bad == {8}
    assert {int(path.name) for path in (copy.parent / checkpoint.DAMAGED).iterdir()} == bad


def test_a_save_waits_for_its_step(copy, monkeypatch):
    with Checkpoints(copy, default.get_config().loop) as checkpoints:
        slow = jax.jit(lambda x: jax.lax.fori_loop(0, 300, lambda _, y: jnp.tanh(y @ y), x))
        result, ready = slow(jnp.ones((400, 400))), []
        assert not result.is_ready()
        monkeypatch.setattr(checkpoints, "_attempt", lambda action: ready.append(result.is_ready()))
        checkpoints.save(result, 1, {})
        monkeypatch.undo()
    assert ready and all(ready)


def test_a_stray_temporary_folder_is_removed(copy):
    stray = shutil.copytree(copy / "6", copy / f"8{checkpoint.atomicity.TMP_DIR_SUFFIX}")
    with Checkpoints(copy, config()) as checkpoints:
        assert_is(checkpoints.restore(state_of(0)), 6)
        checkpoints.save(state_of(8), 8, {})
    assert not stray.exists() and checkpoint.steps(copy) == [8, 6, 4]


def test_without_a_good_checkpoint_nothing_starts_afresh(copy):
    for step in STEPS:
        flip(data_file(copy / str(step)), -1)
    before = files(copy)
    with pytest.raises(CheckpointError, match=r"No checkpoint in .*step 6: state.* has changed.*step 2.*delete"):
        restore(copy)
    assert files(copy) == before  # what might still be rescued stays where it is


def test_arrays_that_are_not_those_that_were_saved_are_refused(copy):
    path = copy / "6" / "hashes" / "metadata"
    path.write_text(path.read_text().replace(json.loads(path.read_text())["params/b/w"], "0" * 64))
    checkpoint.seal(copy / "6")
    with pytest.raises(CheckpointError, match="step 6: params/b/w is read otherwise"):
        restore(copy)


def test_a_checkpoint_of_other_networks_is_refused(copy):
    other = state_of(0)
    with (
        Checkpoints(copy, config()) as checkpoints,
        pytest.raises(CheckpointError, match="does not fit the networks"),
    ):
        checkpoints.restore(other.replace(params=other.params | {"c": {"w": jnp.ones(3)}}))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_save_that_fails_in_the_background_names_its_step_and_place(copy, monkeypatch, number):
    async def fail(*_):
        raise OSError(number, os.strerror(number))  # without a file, as what writes them says it

    monkeypatch.setattr(checkpoint.HashesHandler, "_write", fail)
    told = rf"Could not save step 8 in {copy}: .*{os.strerror(number)}.*are free there"
    with pytest.raises(CheckpointError, match=told):
        save(copy, 8)
    assert checkpoint.steps(copy) == [6, 4, 2]


def test_a_state_with_a_number_that_is_not_finite_is_never_saved(copy):
    bad = state_of(8)
    bad = bad.replace(params=bad.params | {"a": {"w": bad.params["a"]["w"].at[7].set(jnp.nan)}})
    with (
        pytest.raises(CheckpointError, match="Step 8 is not saved: params/a/w holds a number"),
        Checkpoints(copy, config()) as checkpoints,
    ):
        checkpoints.save(bad, 8, {})
    assert checkpoint.steps(copy) == [6, 4, 2] and not any(checkpoint.damage(copy / str(step)) for step in STEPS)
    assert_is(restore(copy), 6)
