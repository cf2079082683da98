"""Whole runs from the command line: everything, again, interrupted, and on the layouts of the official downloads."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from b2b_jax import images, weights
from b2b_jax.data import blur, scenes

ROOT = Path(__file__).parents[1]
STEPS = 20  # of either stage of demo.py:quick
QUICK = ("--config=configs/demo.py:quick",)


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Of the subprocesses: they share their compiled programs, which start empty."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("xla"))}
    return os.environ | cache | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Where the generated scenes are kept."""
    return tmp_path_factory.mktemp("data")


def start(environment, workdir, data, *arguments, module=("-m", "b2b_jax.main")):
    """Starts the main command, or that of another module; both of its streams come back as one text."""
    places = [f"--workdir={workdir}", f"--config.data.root={data}"]
    command = [sys.executable, *module, *arguments, *places]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process):
    """Waits for the end; returns the exit code and what was printed."""
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


@pytest.fixture(scope="module")
def demo(environment, data, tmp_path_factory):
    """The folder of demo.py:quick, run to its end without a break."""
    workdir = tmp_path_factory.mktemp("demo") / "run"
    code, output = finish(start(environment, workdir, data, *QUICK))
    assert code == 0, output
    return workdir


def logged(folder):
    """The rows of a stage's log; none before it is written."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def arrays(stage):
    """The weights of a finished stage."""
    return load_file(stage / "weights.safetensors")


def assert_equal_bits(got, want):
    assert got.keys() == want.keys() and len(want) >= 10  # the smallest network, the camera, has ten arrays
    assert all(got[name].tobytes() == want[name].tobytes() for name in want)


def assert_scored(workdir, rows, count):
    results = json.loads((workdir / "results.json").read_text())
    assert list(results["rows"]) == rows and results["images"] == count
    assert all(math.isfinite(value) for row in results["rows"].values() for value in row.values())
    assert all(row["psnr"] > 5 and -1 <= row["ssim"] <= 1 for row in results["rows"].values())
    lines = (workdir / "evaluation" / "images.csv").read_text().splitlines()
    assert len(lines) == 1 + len(rows) * count
    return results


# ------------------------------------------------------------------------------------------------------------- the demo


def test_the_demo_scores_every_row_and_reports(demo):
    results = assert_scored(demo, ["input", "deblurrer", "fixed_filter", "blur2blur", "adapted", "oracle"], 8)
    assert results["notes"]["fixed_filter"] and results["train"]["translator"]["steps"] == STEPS
    page = (demo / "report" / "index.html").read_text()
    assert 'data-reload="0"' in page and "<progress" not in page
    assert f"{results['rows']['blur2blur']['psnr']:.2f}" in page and "data:image" in page


@pytest.mark.parametrize("stage", ["deblurrer", "adaptation", "translator"])
def test_a_stage_leaves_its_log_samples_checkpoints_and_weights(demo, stage):
    folder = demo / stage
    rows = logged(folder)
    assert sorted({row["step"] for row in rows}) == list(range(5, STEPS + 1, 5))
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert [row["step"] for row in rows if "validation_psnr" in row] == [10, 20]
    assert json.loads((folder / "summary.json").read_text())["steps"] == STEPS
    assert [path.name for path in sorted((folder / "samples").iterdir())] == ["00000010.png", "00000020.png"]
    assert "truth" in json.loads((folder / "samples.json").read_text())
    assert {path.name for path in (folder / "checkpoints").iterdir()} >= {"10", "20"}
    assert list(folder.glob("events.out.tfevents.*"))
    assert all(np.isfinite(array).all() for array in arrays(folder).values())


def test_the_samples_show_every_version_side_by_side(demo):
    sample = images.read(demo / "translator" / "samples" / "00000020.png")
    assert sample.shape == (4 * 32, 4 * 32, 3)  # four photos of 32 px: y, G(y), D_K(G(y)), truth


def test_the_same_command_again_trains_nothing(demo, environment, data):
    kept = [demo / "results.json", *demo.glob("*/weights.safetensors"), *demo.glob("*/metrics.jsonl")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    begin = time.monotonic()
    code, output = finish(start(environment, demo, data, *QUICK))
    assert code == 0 and time.monotonic() - begin < 20, output
    assert len(before) == 9 and {path: path.stat().st_mtime_ns for path in kept} == before
    for stage in ("deblurrer", "camera", "adaptation", "translator", "evaluation"):
        assert f"{stage}: done before, skipped" in output


def flipped(path):
    """One bit in the middle of the arrays."""
    data = bytearray(path.read_bytes())
    data[len(data) * 7 // 10] ^= 0x20
    path.write_bytes(data)


def of_another_seed(path):
    """A whole file of the same network and stage, with other numbers in it."""
    told, (_, variables) = weights.header(path), weights.load(path)
    other = jax.tree.map(lambda x: x + 1e-3, variables)
    weights.save(path, told["model"], told["hyper"], other, stage=told["stage"])


CHANGES = [("deblurrer", flipped, "is damaged"), ("adaptation", of_another_seed, "is not the network")]


@pytest.mark.parametrize(("stage", "change", "said"), CHANGES)
def test_changed_weights_end_the_next_start_and_touch_nothing(demo, environment, data, tmp_path, stage, change, said):
    run, file = shutil.copytree(demo, tmp_path / "run"), tmp_path / "run" / stage / "weights.safetensors"
    change(file)
    before = {path: path.read_bytes() for path in (file, run / "results.json", run / "evaluation" / "images.csv")}
    code, output = finish(start(environment, run, data, *QUICK))
    lines = [line for line in output.splitlines() if line.startswith(f"{file} {said}")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in output, output
    assert {path: path.read_bytes() for path in before} == before


# --------------------------------------------------------------------------------------------------------- interruption


def wait_for(process, stage, step):
    """Returns once the stage has logged `step`; the run must still be going on."""
    deadline = time.monotonic() + 400
    while not any(row["step"] >= step for row in logged(stage)):
        assert process.poll() is None and time.monotonic() < deadline, finish(process)
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_run_ends_with_the_same_bits(demo, environment, data, tmp_path, number, code):
    """The first log row of the translator comes with its first five steps: fifteen are left."""
    process, page = start(environment, tmp_path / "run", data, *QUICK), tmp_path / "run" / "report" / "index.html"
    wait_for(process, tmp_path / "run" / "deblurrer", STEPS)
    assert 'data-reload="15"' in page.read_text() and "is running: " in page.read_text()
    wait_for(process, tmp_path / "run" / "translator", 5)
    process.send_signal(number)
    stopped, output = finish(process)
    assert stopped == code and output.count(f"Follow the run in {page}\n") == 1, output
    assert "<dt>deblurrer</dt>" in page.read_text() and f"{STEPS} of {STEPS} steps" in page.read_text()
    assert not (tmp_path / "run" / "translator" / "weights.safetensors").exists()
    if number == signal.SIGTERM:
        assert "the same command resumes from here" in output and "Traceback" not in output
        assert 'data-reload="0"' in page.read_text() and "Not running, and not finished: translator" in page.read_text()
        assert len(list((tmp_path / "run" / "translator" / "checkpoints").iterdir())) > 0
    ended, output = finish(start(environment, tmp_path / "run", data, *QUICK))
    assert 'data-reload="0"' in page.read_text() and "<progress" not in page.read_text()
    assert ended == 0 and "deblurrer: done before, skipped" in output, output
    assert_equal_bits(arrays(tmp_path / "run" / "translator"), arrays(demo / "translator"))
    assert_equal_bits(arrays(tmp_path / "run" / "deblurrer"), arrays(demo / "deblurrer"))
    steps = [row["step"] for row in logged(tmp_path / "run" / "translator") if "loss_g" in row or "d_real" in row]
    assert steps == list(range(5, STEPS + 1, 5))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["camera", "adaptation"])
def test_a_killed_camera_or_adaptation_ends_with_the_same_bits(demo, environment, data, tmp_path, stage):
    arguments = (*QUICK, "--config.stages=deblurrer,camera,adaptation", "--config.loop.checkpoint_every=4")
    process = start(environment, tmp_path, data, *arguments)
    wait_for(process, tmp_path / stage, 5)
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert not (tmp_path / stage / "weights.safetensors").exists()
    code, output = finish(start(environment, tmp_path, data, *arguments))
    assert code == 0 and "deblurrer: done before, skipped" in output, output
    for name in ("camera", "adaptation"):
        assert_equal_bits(arrays(tmp_path / name), arrays(demo / name))


# -------------------------------------------------------------------------------------------------- official downloads

TINY = (
    "--config=configs/reds.py",
    "--config.deblurrer.network.width=8",
    "--config.deblurrer.network.encoders=(1,)",
    "--config.deblurrer.network.middle=1",
    "--config.deblurrer.network.decoders=(1,)",
    "--config.deblurrer.steps=4",
    "--config.deblurrer.batch=2",
    "--config.deblurrer.crop=32",
    "--config.blur_extractor.network.nf=4",
    "--config.blur_extractor.network.kernel_dim=8",
    "--config.blur_extractor.network.front_blocks=0",
    "--config.blur_extractor.network.back_blocks=1",
    "--config.blur_extractor.network.kernel_blocks=0",
    "--config.blur_extractor.network.reductions=1",
    "--config.blur_extractor.steps=4",
    "--config.blur_extractor.batch=2",
    "--config.blur_extractor.crop=32",
    "--config.translator.generator.base_channels=4",
    "--config.translator.generator.num_res=1",
    "--config.translator.discriminator.ndf=4",
    "--config.translator.discriminator.n_layers=2",
    "--config.translator.content.kind=pooled",
    "--config.translator.steps=4",
    "--config.translator.batch=2",
    "--config.translator.crop=48",
    "--config.loop.log_every=2",
    "--config.loop.evaluate_every=4",
    "--config.loop.checkpoint_every=2",
    "--config.evaluation.validation_images=2",
    "--config.evaluation.validation_crop=32",
    "--config.evaluation.batch=2",
    "--config.evaluation.examples=1",
)


def write_pair(sharp, blurry_path, sharp_path):
    images.write(sharp_path, sharp)
    kernel = blur.box_filter_kernel(7)
    images.write(blurry_path, blur.round8(blur.apply(sharp.astype(np.float32) / 255, kernel)))


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """GoPro and REDS in the layouts of their downloads: parts of three scenes of two photos of 128 x 96 pixels."""
    root, number = tmp_path_factory.mktemp("downloads"), 0
    for gopro, reds in (("train", "train"), ("test", "val")):
        for scene in range(3):
            for i in range(2):
                one, other = (x[:96] for x in scenes.generate(5, 2, 128, workers=1, progress=False, first=number))
                folder, number = root / "GOPRO_Large" / gopro / f"GOPR{scene:04d}", number + 2
                write_pair(one, folder / "blur" / f"{i:06d}.png", folder / "sharp" / f"{i:06d}.png")
                name = f"{scene:03d}/{i:08d}.png"
                folder = root / "REDS" / reds
                write_pair(other, folder / f"{reds}_blur" / name, folder / f"{reds}_sharp" / name)
    return root


@pytest.mark.slow
def test_reds_trains_and_evaluates_on_small_downloads_and_is_then_done(downloads, environment, tmp_path):
    code, output = finish(start(environment, tmp_path, downloads, *TINY))
    assert code == 0, output
    assert_scored(tmp_path, ["input", "deblurrer", "blur2blur"], 6)
    record = json.loads((tmp_path / "split.json").read_text())
    piles = [record["unknown_blur"], record["unknown_sharp"]]
    assert sorted(pile["photos"] for pile in piles) == [2, 4]
    assert sorted(scene for pile in piles for scene in pile["scenes"]) == ["000", "001", "002"]
    before = arrays(tmp_path / "translator")
    (tmp_path / "translator" / "weights.safetensors").unlink()
    code, output = finish(start(environment, tmp_path, downloads, *TINY))
    assert code == 0 and "deblurrer: done before, skipped" in output, output
    assert_equal_bits(arrays(tmp_path / "translator"), before)  # from the checkpoint of its last step
    code, output = finish(start(environment, tmp_path, downloads, *TINY))
    assert code == 0 and output.count("done before, skipped") == 4, output


@pytest.mark.slow
def test_the_known_blur_of_a_run_is_written_for_other_tools(downloads, environment, tmp_path):
    stages = "--config.stages=blur_extractor"
    code, output = finish(start(environment, tmp_path / "run", downloads, *TINY, stages))
    assert code == 0 and "validation_psnr" in output, output
    module = ["-m", "b2b_jax.synthesize", f"--output={tmp_path / 'known'}", "--count=3"]
    for wanted in (0, 2):  # the second time the folder is there
        code, output = finish(start(environment, tmp_path / "run", downloads, *TINY, module=module))
        assert code == wanted and "Traceback" not in output, output
    for i in range(3):
        blurry, sharp = (images.read(tmp_path / "known" / part / f"{i:06d}.png") for part in ("blurry", "sharp"))
        assert blurry.shape == sharp.shape == (48, 48, 3) and (blurry != sharp).any()


@pytest.mark.slow
def test_a_checkpoint_holds_no_frozen_network(downloads, environment, tmp_path):
    code, output = finish(
        start(environment, tmp_path, downloads, *TINY, "--config.stages=deblurrer,blur_extractor,translator")
    )
    assert code == 0, output
    step = tmp_path / "translator" / "checkpoints" / "4"
    names = " ".join(path.read_text(errors="ignore") for path in step.rglob("*") if path.name == "_METADATA")
    assert "generator" in names and "discriminator" in names
    assert "kernel_extractor" not in names and "recon_trunk" not in names
