"""The training loop and the folder's lock: stopping, going on, bad steps, a full disk. One number is trained."""

import dataclasses
import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from b2b_jax import files, sharding, terminal
from b2b_jax.data import pipeline
from b2b_jax.data.sources import ArraySource
from b2b_jax.errors import UserError
from b2b_jax.evaluation import summary
from b2b_jax.stages.run import Run
from b2b_jax.training import checkpoint, loop, signals
from b2b_jax.training import state as states
from b2b_jax.training.checkpoint import CheckpointError
from configs import default

ROOT = Path(__file__).parents[1]
STEPS, BATCH = 12, 2
ADAM = optax.adam(1e-2)


def config(**changes):
    settings = default.get_config()
    settings.loop.update(log_every=2, evaluate_every=3, checkpoint_every=3, keep=9, log_images=True, bad_steps=3)
    settings.loop.update(changes)
    return settings


def dataset():
    photos = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), np.uint8)
    # Two steps show the same photos, in other crops: a run may stop between them.
    stream = pipeline.stream(ArraySource("photo", image=photos), pipeline.Crop(3), 0, crops=2)
    return pipeline.batches([stream], BATCH, 0, 1)


def task(bad=(), at=lambda step: None, width=3):
    """Trains `width` numbers towards a channel's mean; the steps in `bad` are not finite; at(step) when validated."""

    def init(key):
        params = {"net": {"w": jax.random.normal(key, (width,))}}
        return states.create(params, {"net": ADAM}, ("net",))

    def step(state, frozen, batch, key):
        target = batch["image"].astype(jnp.float32).mean() + jax.random.normal(jax.random.fold_in(key, state.step))
        loss, gradient = jax.value_and_grad(lambda p: jnp.sum((p["w"] - target) ** 2))(state.params["net"])
        poison = jnp.where(jnp.isin(state.step + 1, jnp.array([0, *bad])), jnp.nan, 1.0)
        new = states.updated(state, "net", jax.tree.map(lambda g: g * poison, gradient), ADAM)
        return states.finished(new, state, 0.9), {"loss": loss}

    def evaluate(state):
        at(int(state.step))
        return {"validation_psnr": float(state.step)}, {"photo": np.zeros((1, 2, 2, 3))}

    return loop.Task("net", STEPS, BATCH, init, step, {}, evaluate)


def train(folder, settings=None, validated=lambda: None, **options):
    return loop.train(task(**options), dataset(), folder, settings or config(), validated)


def rows(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def assert_same(folder, other):
    """Equal last checkpoints, and equal photos in equal order."""
    last = [folder / "checkpoints" / str(STEPS) / "hashes" / "metadata" for folder in (folder, other)]
    assert json.loads(last[0].read_text()) == json.loads(last[1].read_text())
    assert rows(folder, "images.jsonl") == rows(other, "images.jsonl")


def test_a_run_starts_from_given_weights_and_their_average():
    given = {"net": {"w": np.array([1.0, 2.0, 3.0], np.float32)}}
    mesh = sharding.make_mesh()
    state, drawn = (
        loop.FreshState(dataclasses.replace(task(), start=start), mesh, seed=0).take() for start in (given, {})
    )
    for weights in (state.params, state.ema):
        np.testing.assert_array_equal(weights["net"]["w"], given["net"]["w"])
    assert not np.array_equal(drawn.params["net"]["w"], given["net"]["w"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    train(folder)
    return folder


def test_a_log_is_not_filled_with_what_training_shows(capfd):
    reporter = types.SimpleNamespace(_shown={}, _bar=terminal.bar(total=9))
    for step in range(9):
        reporter._bar.update()
        loop.Reporter._show(reporter, loss=f"{step}")
    reporter._bar.close()
    printed = capfd.readouterr().err
    assert printed.count("/9") == 2 and "loss=8" in printed  # the first state and the last


def test_a_run_logs_every_photo_and_its_goodput(whole):
    batches = dataset()
    wanted = [{"step": s + 1, "names": batches[s]["name"].ravel().tolist()} for s in range(STEPS)]
    assert rows(whole, "images.jsonl") == wanted
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["steps"] == STEPS and 0 < summary["goodput"] < 1
    last = rows(whole, "metrics.jsonl")[-1]
    assert 0 < last["productive"] < last["seconds"]
    assert summary["goodput"] == pytest.approx(last["productive"] / last["seconds"], abs=0.1)


# ----------------------------------------------------------------------------------------------------------- the report


@pytest.fixture
def run(tmp_path):
    """A run whose translator is the number that is trained here."""
    settings = config()
    settings.translator.steps = STEPS
    (tmp_path / "config.json").write_text(settings.to_json())
    return Run(settings, tmp_path)


def test_the_report_follows_a_run(run):
    pages, path = [], run.workdir / "report" / "index.html"

    def renew():
        summary.show(run, "translator")
        pages.append(path.read_text())

    train(run.workdir / "translator", run.config, renew)
    assert len(pages) == STEPS // 3
    for step, page in zip(range(3, STEPS + 1, 3), pages, strict=True):
        assert f"The stage translator is running: {step} of {STEPS} steps" in page and 'data-reload="15"' in page
        assert f'<progress value="{step}" max="{STEPS}" aria-label="translator">' in page
        assert f"translator, step {step}" in page and "photo 1: photo" in page
        assert ("translator: Loss" in page) == ("translator: Validation PSNR" in page) is True
    assert "about" in pages[1] and " left</dd>" in pages[1] and " left</dd>" not in pages[-1]
    summary.show(run, "")
    assert 'data-reload="0"' in path.read_text() and "deblurrer 0 of 400,000 steps" in path.read_text()


def test_a_report_that_cannot_be_written_stops_nothing_and_is_told_in_a_line(run, capsys):
    (run.workdir / "report").write_text("a file where the folder should be")
    state = train(run.workdir / "translator", run.config, lambda: summary.show(run, "translator"))
    told = [line for line in capsys.readouterr().err.splitlines() if "The report is not renewed: File exists: " in line]
    assert state.step == STEPS and len(told) == 1


def test_a_page_is_written_whole_or_not_at_all(run, capsys):
    summary.show(run, "translator")
    path = run.workdir / "report" / "index.html"
    before, limits = path.read_text(), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        summary.show(run, "evaluation")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in capsys.readouterr().err
    assert path.read_text() == before and list(path.parent.iterdir()) == [path]


# ------------------------------------------------------------------------------------------------------------- stopping


def send_at(step, *numbers):
    """Sends signals to this process when `step` is validated."""
    return lambda now: [os.kill(os.getpid(), number) for number in numbers if now == step]


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ([signal.SIGTERM, signal.SIGTERM], 143),
        ([signal.SIGHUP, signal.SIGHUP], 129),
        ([signal.SIGINT, signal.SIGTERM], 130),
    ],
)
def test_a_signal_saves_the_running_step_and_the_rest_is_the_same(whole, tmp_path, capsys, monkeypatch, numbers, code):
    before = [signal.getsignal(number) for number in signals.NUMBERS]
    with pytest.raises(loop.Stopped) as stop:
        train(tmp_path, at=send_at(3, *numbers))
    said = capsys.readouterr()
    assert stop.value.code == code and "Saving, then stopping" in said.err and "net: 3 parameters, on" in said.out
    assert [signal.getsignal(number) for number in signals.NUMBERS] == before
    newest = checkpoint.steps(tmp_path / "checkpoints")[0]
    assert 3 < newest < STEPS and newest == rows(tmp_path, "images.jsonl")[-1]["step"]
    seconds = rows(tmp_path, "metrics.jsonl")[-1]["seconds"]
    monkeypatch.delattr(loop.FreshState, "begin")  # a stage that resumes draws no weights
    train(tmp_path)
    assert rows(tmp_path, "metrics.jsonl")[-1]["seconds"] > seconds
    assert_same(tmp_path, whole)


def test_a_run_that_goes_on_is_one_run_of_weights_and_biases(tmp_path, monkeypatch):
    """With a stand-in for the package, which is optional and wants an account or its offline mode."""
    started = []

    class Started:
        def __init__(self, **settings):
            self.settings, self.steps, self.finished = settings, [], False
            started.append(self)

        def log(self, values, step):
            self.steps.append((step, values["seconds"]))

        def finish(self):
            self.finished = True

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=Started))
    with pytest.raises(loop.Stopped):
        train(tmp_path, config(wandb="trial"), at=send_at(3, signal.SIGTERM))
    train(tmp_path, config(wandb="trial"))
    assert started[0].settings["id"] == started[1].settings["id"] != "" and started[0].settings["project"] == "trial"
    assert all(run.finished for run in started) and all(run.settings["resume"] == "allow" for run in started)
    logged = [(row["step"], row["seconds"]) for row in rows(tmp_path, "metrics.jsonl")]
    assert started[0].steps + started[1].steps == logged
    shutil.rmtree(tmp_path / "checkpoints")  # afresh: Weights & Biases would ignore steps that it has had
    train(tmp_path, config(wandb="trial"))
    assert started[2].settings["id"] != started[0].settings["id"]


@pytest.mark.parametrize("step", [STEPS - 1, STEPS])  # of the validation in which it comes
def test_a_signal_at_the_last_step_stops_and_still_gives_a_summary(tmp_path, step):
    with pytest.raises(loop.Stopped):
        train(tmp_path, config(evaluate_every=STEPS - 1), at=send_at(step, signal.SIGTERM))
    assert checkpoint.steps(tmp_path / "checkpoints")[0] == STEPS and (tmp_path / "summary.json").exists()
    (tmp_path / "summary.json").unlink()  # as if the process had died before it was written
    train(tmp_path)
    before = (tmp_path / "summary.json").read_text()
    train(tmp_path)
    assert (tmp_path / "summary.json").read_text() == before and json.loads(before)["images_per_second"] > 0


# ------------------------------------------------------------------------------------------------------------ bad steps


def test_fewer_bad_steps_in_a_row_than_allowed_are_skipped_and_counted(tmp_path):
    state = train(tmp_path, bad=(2, 3, 5, 6, 12))
    assert (state.step, state.skipped, state.bad_in_row) == (STEPS, 5, 1)
    assert [row["skipped"] for row in rows(tmp_path, "metrics.jsonl") if "skipped" in row] == [1, 2, 4, 4, 4, 5]


@pytest.mark.parametrize("last", [5, STEPS])
def test_too_many_in_a_row_stop_with_step_losses_and_photos_whatever_is_logged_when(tmp_path, last):
    settings = config(log_every=100, evaluate_every=100, checkpoint_every=4)
    with pytest.raises(loop.Diverged) as stop:
        train(tmp_path, settings, bad=(last - 4, last - 2, last - 1, last))
    assert f"3 steps in a row up to step {last}" in str(stop.value) and "loss " in str(stop.value)
    names = dataset()[last - 1]["name"].ravel().tolist()
    assert len(names) == BATCH and ", ".join(names) in str(stop.value)


def test_the_count_of_bad_steps_goes_on_after_a_restart(tmp_path):
    with pytest.raises(loop.Stopped):  # the step that is running when it stops is bad, too
        train(tmp_path, config(bad_steps=9), bad=range(4, STEPS), at=send_at(3, signal.SIGTERM))
    saved = checkpoint.steps(tmp_path / "checkpoints")[0]
    assert 3 < saved < 9
    with pytest.raises(loop.Diverged, match="8 steps in a row up to step 11"):
        train(tmp_path, config(bad_steps=8), bad=range(4, STEPS))


# ------------------------------------------------------------------------------------------------------------ full disk


def digests(folder):
    return {path: checkpoint.digest(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what Orbax had still to write
def test_a_full_disk_stops_within_a_save_interval_and_costs_nothing(tmp_path):
    wide = functools.partial(train, width=100_000)
    wide(tmp_path / "whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = {}

    def fill(step):
        if step == 6:
            while not checkpoint.steps(tmp_path / "run" / "checkpoints"):  # it is saved in the background
                time.sleep(0.01)
            kept.update(digests(tmp_path / "run" / "checkpoints" / "3"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))

    try:
        with pytest.raises(CheckpointError) as error:
            wide(tmp_path / "run", at=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    words = (
        "Could not save step 6",
        str(tmp_path / "run" / "checkpoints"),
        "1,600,016 bytes",
        "File too large",
        "free there",
    )
    assert all(word in str(error.value) for word in words), error.value
    assert rows(tmp_path / "run", "images.jsonl")[-1]["step"] <= 9
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [3]
    assert digests(tmp_path / "run" / "checkpoints" / "3") == kept != {}
    wide(tmp_path / "run")
    assert_same(tmp_path / "run", tmp_path / "whole")


# ---------------------------------------------------------------------------------------------------- the folder's lock

HOLD = "import sys, time; from pathlib import Path; from b2b_jax import files\n"
HOLD += "with files.lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_in_use_is_refused_with_host_and_process(holder, tmp_path):
    with pytest.raises(UserError) as error, files.lock(tmp_path / "run"):
        pass
    assert f"process {holder.pid} on {os.uname().nodename}" in str(error.value) and str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_lock_ends_with_its_process_however_it_ends(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / files.LOCK).exists()
    with files.lock(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run" / files.LOCK).read_text()
    assert not (tmp_path / "run").exists()  # nothing was in it


def test_only_drafts_are_removed(tmp_path):
    names = [".weights.safetensors.12.tmp", "deep/.0a1b.part", "notes.tmp", "deep/image.png", ".lock"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    files.remove_drafts(tmp_path)
    assert [name for name in names if (tmp_path / name).exists()] == names[2:]
