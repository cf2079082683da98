"""How far a run has come, from the logs and samples of its stages."""

import json

import numpy as np
import pytest

from b2b_jax import record
from b2b_jax.evaluation import progress, summary
from b2b_jax.networks import WEIGHTS
from b2b_jax.stages import left_out, trained_here
from b2b_jax.stages.run import Run
from b2b_jax.training.log import Log
from configs import demo

RNG = np.random.default_rng(0)


@pytest.fixture
def run(tmp_path):
    config = demo.get_config()
    config.adaptation.enabled = False
    return Run(config, tmp_path)


def write_log(run, stage, rows):
    (run.workdir / stage).mkdir(exist_ok=True)
    (run.workdir / stage / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def a_log(steps, pace=0.5, begin=40.0):
    return [{"step": s, "seconds": begin + pace * s, "images_per_second": 16.0} for s in range(20, steps + 1, 20)]


def test_only_what_the_run_trains_is_counted(run):
    assert trained_here(run) == {"deblurrer": 1500, "translator": 600}
    run.config.deblurrer.weights = "given.safetensors"
    run.config.known_blur.source = "extractor"
    run.config.evaluation.update(paired=True, true_kernels=True)
    assert list(trained_here(run)) == ["blur_extractor", "translator", "paired", "true_kernels"]


def test_the_page_of_an_unfinished_run_can_be_made_anew(run):
    write_log(run, "deblurrer", a_log(240))
    left_out.say(run, "camera", "there are too few photos")
    run.config.camera.enabled, run.config.stages = True, ("report",)
    record.write(run, set())
    page = summary.gather(run)
    assert page.summary.startswith("Not running, and not finished: deblurrer 240 of 1,500 steps. Written ")
    facts = dict(page.facts)
    assert facts["Deblurrer"] == "not there yet" and facts["Camera"] == "left out: there are too few photos"
    assert "jax" in facts["Page written with"]


def test_progress_tells_steps_rate_and_time_left(run):
    write_log(run, "deblurrer", a_log(1500))
    (run.workdir / "deblurrer" / WEIGHTS).write_bytes(b"")
    write_log(run, "translator", a_log(240))
    deblurrer, translator = progress.progress(run, "translator")
    assert (deblurrer.done, deblurrer.text) == (1500, "1,500 of 1,500 steps")
    assert (translator.done, translator.steps) == (240, 600)
    assert translator.text == "240 of 600 steps, 16.0 images/s, about 3 min 0 s left"
    assert progress.progress(run, "")[1].text == "240 of 600 steps"


def test_a_stage_that_only_chooses_has_no_steps(run):
    run.config.kernel_field.update(enabled=True, teacher="reader")
    parts = progress.progress(run, "kernel_field")
    assert {part.name: part.text for part in parts}["kernel_field"] == "no steps to train"
    assert progress.line(parts, "kernel_field").startswith("The stage kernel_field is running: no steps to train. ")


def test_the_time_left_follows_the_last_rows():
    """A slow start, such as one that compiles, does not count for ever."""
    rows = a_log(2000, begin=1000.0)
    for row in rows[:50]:
        row["seconds"] -= 900
    assert progress.seconds_left(rows, 3000) == pytest.approx(500)
    assert progress.seconds_left(rows, 2000) == 0 == progress.seconds_left([], 100)
    assert progress.seconds_left(rows[:1], 3000) == 0  # nothing to go by


def test_the_line_tells_what_runs_and_what_is_missing(run):
    write_log(run, "translator", a_log(240))
    running, stopped = (progress.line(progress.progress(run, stage), stage) for stage in ("translator", ""))
    assert running.startswith("The stage translator is running: 240 of 600 steps")
    assert stopped.startswith("Not running, and not finished: deblurrer 0 of 1,500 steps; translator 240 of 600 steps.")
    assert progress.line([], "evaluation").startswith("The stage evaluation is running. Written ")
    for stage in ("deblurrer", "translator"):
        (run.workdir / stage).mkdir(exist_ok=True)
        (run.workdir / stage / WEIGHTS).write_bytes(b"")
    assert progress.line(progress.progress(run, ""), "") == ""


def test_a_stage_that_left_itself_out_is_not_waited_for(run):
    left_out.say(run, "translator", "there is nothing to translate")
    _, translator = progress.progress(run, "")
    assert translator.text == "left out: there is nothing to translate"
    stopped = progress.line(progress.progress(run, ""), "")
    assert stopped.startswith("Not running, and not finished: deblurrer 0 of 1,500 steps. Written ")
    assert dict(summary.facts(run, {}))["Translator"] == "left out: there is nothing to translate"
    assert progress.progress(run, "translator")[1].text.startswith("0 of 600 steps")  # it looks again
    (run.workdir / "translator" / WEIGHTS).write_bytes(b"")
    assert progress.progress(run, "")[1].text == "600 of 600 steps"


def test_the_headline_is_of_the_stage_that_runs():
    rows = [*a_log(100), {"step": 100, "validation_psnr": 23.5, "seconds": 90.0}]
    rows += [*a_log(200)[5:], {"step": 200, "validation_psnr": 22.25, "seconds": 140.0}]
    found = {name: value for name, value in progress.headline(rows, 400)}
    assert found["of 400 steps"] == "200" and found["dB validation PSNR"] == "22.25"
    assert found["dB, the best so far"] == "23.50" and found["left in this stage, about"] == "1 min 40 s"
    assert progress.headline([], 400) == []


def test_samples_are_cut_out_of_the_newest_picture(run):
    """What was logged comes back to 8 bits, with the result last, where the slider starts."""
    versions = {name: RNG.random((3, 8, 8, 3)).astype(np.float32) for name in ("blurry", "restored", "truth")}
    log = Log(run.workdir / "deblurrer", 0)
    log.samples(150, {name: x[::-1] for name, x in versions.items()}, 2)
    log.samples(1500, versions, 2)
    log.close()
    examples = progress.samples(run, "translator")  # it has none yet
    assert [(one.title, one.kind) for one in examples] == [(f"photo {i}", "deblurrer, step 1,500") for i in (1, 2)]
    for i, one in enumerate(examples):
        assert list(one.images) == ["blurry", "truth", "restored"]
        for name, picture in one.images.items():
            np.testing.assert_allclose(picture / 255, versions[name][i], atol=0.5 / 255 + 1e-6)
    (run.workdir / "deblurrer" / "samples.json").unlink()
    assert progress.samples(run, "deblurrer") == []
