"""The command line: a mistake is answered in a line or two, before anything is compiled; the configurations agree."""

import importlib
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from absl import flags
from helpers.processes import fresh_flags
from ml_collections import ConfigDict

from b2b_jax import commandline, images, main, models, record, settings, sharding, templates, weights
from b2b_jax.errors import UserError
from configs import default

ROOT = Path(__file__).parents[1]
VARIANTS = {
    "ablations": ["ratio,0.7", "generator,mimo_unet_plus,rsblur", "size,0.5,demo"],
    "baselines": [
        *("blur2blur,rb2v,restormer", "paired", "imgaug,rsblur,restormer", "bsrgan,gopro", "rsblur,quick"),
        *("cyclegan", "dualgan,rsblur", "cyclegan,demo", "dualgan,quick", "bsrgan,demo,restormer", "adapted,scenes"),
        *("adapted,burst", "cyclegan,burst", "imgaug,burst,restormer"),
    ],
    "camera": ["", "small", "medium"],
    "default": [""],
    "deblurrers": [
        *("nafnet32_gopro", "nafnet64_gopro", "nafnet64_reds", "restormer_gopro"),
        *("mimo_unet_gopro", "mimo_unet_plus_gopro"),
    ],
    "demo": ["", "full", "hard", "extractor", "quick", "gpu"],
    "gopro": ["", "paper", "release"],
    "limits": [
        *("paths", "photos,25", "others", "drift,zoom", "without,noise", "with,response", "sharpness"),
        *("translator,both", "field,pairs"),
    ],
    "photographs": ["", "phone", "night,true", "burst,blur2blur", "phone,paper", "burst,pairs", "tone"],
    "rb2v": ["", "paper", "release"],
    "reds": ["", "paper", "release"],
    "resunet": [""],
    "rsblur": ["", "paper", "release"],
}
LOADED = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of generated scenes, drawn once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def command(monkeypatch, tmp_path, data):
    """Gives a command line to the process, as a shell would: flags start afresh, the folder is the project's."""

    def give(config, *arguments):
        fresh_flags()
        monkeypatch.chdir(ROOT)
        where = [f"--config.data.root={data}"] if config else []
        name = [f"--config={config}"] if config else []
        monkeypatch.setattr(sys, "argv", ["main", *name, f"--workdir={tmp_path / 'run'}", *where, *arguments])

    return give


@pytest.fixture
def parse(command):
    """Parses a command line in this process."""
    return lambda *arguments: command(*arguments) or commandline.parse()


@pytest.fixture
def refused(command, capsys, tmp_path):
    """Runs a command that must be refused; returns the lines it printed as errors."""

    def run(config, *arguments):
        command(config, *arguments)
        assert main.main() == 2
        output, error = capsys.readouterr()
        assert "Traceback" not in output + error
        assert not (tmp_path / "run" / "deblurrer").exists()
        return [line for line in error.splitlines() if line and "scene" not in line[:6]]  # without the scenes' bar

    return run


QUICK = "configs/demo.py:quick"


# ----------------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("config", "arguments", "wanted"),
    [
        (QUICK, ["--config.translator.stepz=3"], ["'stepz' in config.translator.stepz;", "did you mean 'steps'"]),
        (QUICK, ["--config.translator.lr=3"], ["'lr' in config.translator.lr;", "configs/default.py lists all keys"]),
        (QUICK, ["--config.data.video.limit=3"], ["'video'", "did you mean 'videos'"]),
        (QUICK, ["--config.translator.steps.x=3"], ["'translator.steps.x'"]),
        (QUICK, ["--config.data.root.x=3"], ["Unknown configuration key", "below a plain value"]),
        (QUICK, ["--config.camera.netwrok.hands.x=3"], ["'netwrok'", "did you mean 'network'"]),
        (QUICK, ["--config.data.root[0]=3"], ["Unknown configuration key", "whole value"]),
        (QUICK, ["--config.stages[9]=report"], ["Unknown configuration key", "whole value"]),
        (QUICK, ["--config.seed[0]=3"], ["Unknown configuration key", "whole value"]),
        (QUICK, ["--config.stages=3"], ["config.stages names '3'"]),
        (QUICK, ["--config.stages=()"], ["config.stages is empty"]),
        (QUICK, ["--config.translator.steps=many"], ["--config.translator.steps=many: wanted a whole number"]),
        (QUICK, ["--config.camera.ema=x"], ["--config.camera.ema=x: wanted a number"]),
        (QUICK, ["--config.evaluation.photographs=maybe"], ["photographs=maybe: wanted True or False"]),
        (QUICK, ["--config.data.scenes=3"], ["--config.data.scenes=3: is a section; set one of its keys"]),
        (QUICK, ["--bogus=1"], ["bogus"]),
        (QUICK, ["surplus"], ["surplus", "Usage:"]),
        (QUICK, ["--config.stages=deblurer"], ["deblurer", "did you mean 'deblurrer'"]),
        (QUICK, ["--config.stages=translator,reprot"], ["reprot", "did you mean 'report'"]),
        ("configs/demo.py:quack", [], ["quack", "full, hard, extractor, quick, gpu"]),
        ("configs/reds.py:quack", [], ["quack", "paper", "release"]),
        ("", [], ["No configuration", "Usage:"]),
    ],
)
def test_a_command_that_is_not_understood(refused, config, arguments, wanted):
    (line,) = refused(config, *arguments)
    assert all(word in line for word in wanted), line


def test_a_missing_configuration_file_is_named(refused):
    (line,) = refused("configs/nothing.py")
    assert "configs/nothing.py" in line and "No such file" in line and line == line.strip()


def test_stages_may_be_given_with_commas_and_run_in_their_order(parse):
    run = parse(QUICK, "--config.stages=report,deblurrer")
    assert main.stage_names(run.config) == ["deblurrer", "report"]
    assert main.stage_names(parse(QUICK).config) == main.NAMES


def test_the_default_folder_is_named_after_the_configuration(parse):
    parse("configs/demo.py:quick")
    flags.FLAGS["workdir"].value = None
    assert commandline.default_workdir() == Path("runs/demo_quick")


# ------------------------------------------------------------------------------------------------------- what it checks


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--config.translator.crop=40"], ["translator.crop", "at least 12x12, got 10x10"]),
        (["--config.deblurrer.loss=l2"], ["deblurrer.loss", "'l2'", "charbonnier"]),
        (["--config.translator.crop=50"], ["translator.crop is 50", "a multiple of 4"]),
        (["--config.deblurrer.crop=50"], ["deblurrer.crop is 50", "a multiple of 4"]),
        (["--config.translator.gan_loss=hing"], ["translator.gan_loss is 'hing'", "hinge"]),
        (["--config.translator.curriculum.direction=sharp"], ["curriculum.direction is 'sharp'", "sharp_first"]),
        (["--config.translator.curriculum.start=1.5"], ["curriculum.start is 1.5", "at most 1"]),
        (["--config.translator.curriculum.full_at=10"], ["curriculum.full_at is 10", "before grow_from"]),
        (["--config.translator.optimizer.accumulate=0"], ["accumulate is 0", "every 1 or more steps"]),
        (["--config.translator.content.kind=vgg"], ["translator.content.kind", "vgg", "pooled"]),
        (["--config.translator.batch=0"], ["translator.batch is 0"]),
        (["--config.translator.generator.name=mimo"], ["'mimo' is no model", "mimo_unet"]),
        (["--config.translator.discriminator.norm=layer"], ["layer", "instance"]),
        (["--config.deblurrer.loss=l1+x*mse"], ["deblurrer.loss", "'x'", "weight"]),
        (["--config.deblurrer.loss=l1+perceptual"], ["VGG19", "vgg19.safetensors"]),
        (["--config.deblurrer.optimizer.name=sgd"], ["deblurrer.optimizer.name is 'sgd'", "adamw, adam, rmsprop"]),
        (["--config.deblurrer.optimizer.schedule=step"], ["optimizer.schedule is 'step'", "halving"]),
        (["--config.known_blur.source=folder"], ["known_blur.path"]),
        (
            ["--config.known_blur.source=extractor", "--config.blur_extractor.crop=64"],
            ["blur_extractor.crop does not fit", "at least 256, got 64x64"],
        ),
        (
            ["--config.known_blur.source=extractor", "--config.evaluation.validation_crop=200"],
            ["evaluation.validation_crop is 200", "the blur extractor needs at least 256 pixels"],
        ),
        (["--config.data.known=kitti"], ["data.known is 'kitti'", "gopro"]),
        (["--config.deblurrer.weights=none.safetensors"], ["deblurrer.weights", "none.safetensors"]),
        (["--config.translator.discriminator.norm=batch"], ["discriminator.norm is 'batch'", "instance, none"]),
        (
            ["--config.known_blur.source=magic"],
            ["known_blur.source is 'magic'", "extractor, paired, synthetic"],
        ),
        (["--config.data.scenes.known_kernel.kind=bo"], ["data.scenes.known_kernel", "box"]),
        (["--config.compute_dtype=float16"], ["compute_dtype is 'float16'", "bfloat16"]),
        (["--config.loop.log_every=0"], ["loop.log_every is 0"]),
        (["--config.deblurrer.optimizer.periods=0"], ["deblurrer.optimizer.periods is 0", "at least 1"]),
        (["--config.camera.enabled=True", "--config.camera.network.size=20"], ["camera.network.size is 20", "odd"]),
        (["--config.data.split_ratio=1.5"], ["data.split_ratio is 1.5", "between 0 and 1"]),
        (["--config.data.crops_per_image=0"], ["data.crops_per_image is 0", "at least 1"]),
        (["--config.translator.resize=50"], ["translator.resize is 50", "0 or at least 68"]),
        (["--config.data.bad_photos=ignore"], ["data.bad_photos is 'ignore'", "skip, stop"]),
        (["--config.data.degradation.kind=blur"], ["data.degradation.kind is 'blur'", "realistic", "frames"]),
        (["--config.data.degradation.response=log"], ["data.degradation.response is 'log'", "gamma, srgb, linear"]),
        (["--config.data.degradation.frames=0"], ["data.degradation.frames is 0"]),
        (["--config.deblurrer.steps=-4"], ["deblurrer.steps is -4", "at least 1"]),
        (["--config.deblurrer.steps=99999999999"], ["deblurrer.steps is 99999999999", "at most 2147483647"]),
        (["--config.deblurrer.crop=0"], ["deblurrer.crop is 0", "at least 1"]),
        (["--config.translator.optimizer.generator_rate=nan"], ["generator_rate is nan", "at least 0"]),
        (["--config.deblurrer.optimizer.learning_rate=inf"], ["learning_rate is inf", "at most"]),
        (["--config.seed=-1"], ["seed is -1", "at least 0"]),
        (["--config.seed=99999999999999999999"], ["seed is 99999999999999999999", "at most"]),
        (["--config.deblurrer.network.width=0"], ["deblurrer: its network has a layer without channels"]),
        (["--config.loop.keep_best=-1"], ["loop.keep_best is -1", "at least 0"]),
        (["--heartbeat=0"], ["--heartbeat=0: 0 is not a positive integer"]),
        (["--num_processes=2"], ["--coordinator is not given", "--process_id go together"]),
        (["--coordinator=a:1", "--num_processes=2", "--process_id=2"], ["--process_id is 2 of 2 at a:1"]),
    ],
)
def test_a_setting_that_cannot_be(refused, arguments, wanted):
    lines = refused(QUICK, *arguments)
    assert any(all(word in line for word in wanted) for line in lines), lines
    assert len(lines) <= 2


def folder_of(path, size, count=2):
    """A folder of `count` grey photos of size (h, w)."""
    for index in range(count):
        images.write(path / f"{index}.png", np.full((*size, 3), 100, np.uint8))
    path.mkdir(exist_ok=True)
    return path


@pytest.mark.parametrize(
    ("key", "make", "wanted"),
    [
        ("unknown_blur", lambda path: path / "nowhere", "no such folder"),
        ("unknown_sharp", lambda path: folder_of(path / "empty", (80, 80), 0), "no photos in it (found: nothing)"),
        ("unknown_blur", lambda path: folder_of(path / "tiny", (30, 80)), "0.png is 80x30 pixels, smaller than"),
        ("unknown_sharp", lambda path: folder_of(path / "tiny", (80, 31)), "0.png is 31x80 pixels, smaller than"),
    ],
)
def test_a_folder_that_cannot_be_used(refused, tmp_path, key, make, wanted):
    given = dict.fromkeys(("unknown_blur", "unknown_sharp"), folder_of(tmp_path / "good", (96, 96)))
    given[key] = make(tmp_path)
    lines = refused(QUICK, *(f"--config.data.{name}={path}" for name, path in given.items()))
    assert all(wanted in line and str(given[key]) in line for line in lines)  # one of each stage that needs the pile
    assert 1 <= len(lines) <= 3


@pytest.mark.parametrize(
    ("place", "wanted"), [("", "name the file in it, such as {}/weights.safetensors"), ("no", "no such file")]
)
def test_given_weights_that_are_no_file(refused, tmp_path, place, wanted):
    given = tmp_path / place
    lines = refused(QUICK, f"--config.deblurrer.weights={given}")
    assert any(line.startswith(f"deblurrer.weights is {given}: ") and wanted.format(given) in line for line in lines)


def test_given_weights_of_a_network_that_restores_no_photos(refused, tmp_path):
    network = models.create("patchgan", ndf=4)
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), templates.template(network))
    weights.save(tmp_path / "judge.safetensors", "patchgan", {"ndf": 4}, variables)
    lines = refused(QUICK, f"--config.deblurrer.weights={tmp_path / 'judge.safetensors'}")
    assert any("it holds a patchgan, which does not restore photos" in line for line in lines)


def test_videos_of_which_no_frame_can_be_taken(refused, tmp_path):
    good = folder_of(tmp_path / "good", (96, 96))
    (good / "clip.mp4").touch()
    piles = [f"--config.data.{name}={good}" for name in ("unknown_blur", "unknown_sharp")]
    lines = refused(QUICK, *piles, "--config.data.videos.every=0")
    assert lines[0] == "data.videos.every is 0; it must be at least 1"


def test_a_bad_photo_stops_before_the_first_step_if_asked(refused, tmp_path):
    good = folder_of(tmp_path / "good", (96, 96), count=3)
    (good / "note.png").write_text("not a photo")
    piles = [f"--config.data.{name}={good}" for name in ("unknown_blur", "unknown_sharp")]
    (line, *_) = refused(QUICK, *piles, "--config.data.bad_photos=stop")
    assert line.startswith(f"{good / 'note.png'}: not an image") and "1 bad among 4 photos looked at" in line


@pytest.mark.parametrize(("stage", "crop"), [("deblurrer", 32), ("translator", 48)])
def test_a_crop_that_is_blurred_as_it_is_cut_needs_its_margin(refused, stage, crop):
    (line,) = refused(QUICK, f"--config.data.scenes.size={crop + 19}", f"--config.stages={stage}")
    assert f"smaller than the {crop + 20} that a training crop needs" in line and f"--config.{stage}.crop" in line


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["deblurrer.network.width=0"], "deblurrer"),
        (["translator.weights=none.safetensors"], "translator.weights is none.safetensors: no such file"),
        (["data.unknown_blur=none", "data.unknown_sharp=tests"], "data.unknown_blur is none: no such folder"),
        (["data.unknown_blur=tests", "data.unknown_sharp=tests", "data.test_blur=tests"], "No test_sharp photos"),
        (["data.unknown_blur=tests", "data.unknown_sharp=tests", "data.test_known=tests"], "No test_blur photos"),
        (["data.test_blur=tests"], "data.test_blur can only be used with your own photos"),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(refused, tmp_path, arguments, wanted):
    lines = refused(QUICK, f"--config.data.root={tmp_path / 'data'}", *(f"--config.{one}" for one in arguments))
    assert any(wanted in line for line in lines) and not (tmp_path / "data").exists()


def test_every_missing_folder_has_its_line(refused):
    lines = refused("configs/camera.py")
    assert len(lines) == 3
    assert "GOPRO_Large" in lines[0]
    assert "--config.data.unknown_blur=DIR" in lines[1] and "--config.data.unknown_sharp=DIR" in lines[2]


def test_reds_without_its_downloads_names_each_of_them(refused):
    lines = refused("configs/reds.py", "--config.translator.content.weights=none/vgg19.safetensors")
    assert len(lines) == 3
    for line, words in zip(lines, (["GOPRO_Large", "known_path"], ["REDS", "unknown_path"], ["VGG19"]), strict=True):
        assert all(word in line for word in words), line
    assert "none/vgg19.safetensors" in lines[2] and "b2b_jax.convert" in lines[2]


def test_a_folder_of_another_run_is_refused_with_the_difference(refused, parse, tmp_path):
    record.write(parse(QUICK), set())
    (line,) = refused(QUICK, "--config.seed=7", "--config.translator.batch=8")
    assert str(tmp_path / "run") in line and "seed: 0 → 7" in line and "translator.batch: 4 → 8" in line
    assert '"seed": 0' in (tmp_path / "run" / "config.json").read_text()


def test_the_same_folder_takes_other_settings_of_loop_and_evaluation(parse, tmp_path):
    record.write(parse(QUICK), set())
    run = parse(QUICK, "--config.loop.log_every=7", "--config.evaluation.images=2", "--config.data.threads=1")
    record.refuse_changes(run)
    record.write(run, set())
    assert '"log_every": 7' in (tmp_path / "run" / "config.json").read_text()


def test_a_refused_command_leaves_no_folder(refused, tmp_path):
    refused(QUICK, "--config.translator.batch=0")
    assert not (tmp_path / "run").exists()


def test_differences_name_changed_new_and_lost_keys():
    old, new = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "e": 4}
    assert settings.differences(old, new) == ["a.c: 2 → 5", "d: 3 → None", "e: None → 4"]


# ------------------------------------------------------------------------------------------------------- configurations


def load(name, variant):
    module = importlib.import_module(f"configs.{name}")
    return module.get_config(variant) if variant else module.get_config()


def keys(config, prefix=""):
    """Dotted names of all values."""
    if not hasattr(config, "items"):
        return {prefix}
    return {key for name, value in config.items() for key in keys(value, f"{prefix}.{name}".strip("."))}


def test_every_configuration_is_tested():
    assert {path.stem for path in (ROOT / "configs").glob("*.py")} - {"__init__"} == set(VARIANTS)


@pytest.mark.parametrize(("name", "variant"), LOADED)
def test_a_configuration_has_the_keys_of_default_and_no_other(name, variant):
    configs = load(name, variant), default.get_config()
    for config in configs:
        settings.check_numbers(config)
        for section, part in (("deblurrer", "network"), ("translator", "generator"), ("cycle", "generator")):
            models.create(**config[section][part].to_dict())  # another network has hyper-parameters of its own
            config[section][part] = ConfigDict()
        settings.check_scenes(config.data.scenes)  # another blur has parameters of its own
        for kernel in ("known_kernel", "unknown_kernel"):
            config.data.scenes[kernel] = ConfigDict()
    assert keys(configs[0]) == keys(configs[1])


@pytest.mark.parametrize(("name", "variant"), LOADED)
def test_a_configuration_loads_from_the_command_line(parse, name, variant):
    run = parse(f"configs/{name}.py:{variant}" if variant else f"configs/{name}.py")
    assert run.config.to_dict() | {"data": 0} == load(name, variant).to_dict() | {"data": 0}


@pytest.mark.parametrize("name", sorted(VARIANTS.keys() - {"default"}))
def test_a_docstring_gives_the_command(name):
    text = re.sub(r"\\\n\s*", "", importlib.import_module(f"configs.{name}").__doc__)
    assert f"python -m b2b_jax.main --config configs/{name}.py" in text


def test_release_follows_the_released_code_where_it_differs():
    paper, release = load("reds", "paper").translator, load("reds", "release").translator
    chosen = [(c.gan_loss, c.content.kind, c.batch, c.gradient_penalty.weight) for c in (paper, release)]
    assert chosen == [("logistic", "vgg19", 16, 0.005), ("hinge", "vgg16", 1, 1e-4)]
    assert (paper.curriculum.start, release.curriculum.start) == (0.5, 1.0)
    assert [(c.augment, c.turns, c.resize) for c in (paper, release)] == [(True, True, 0), (True, False, 512)]
    assert paper.content.weight == release.content.weight == 0.8
    assert (paper.steps, paper.optimizer.constant_steps) == (1_000_000, 500_000)
    assert (release.steps, release.optimizer.constant_steps) == (300 * 14_400, 100 * 14_400)


def test_an_unknown_variant_is_a_user_error_of_the_file(parse):
    with pytest.raises(UserError, match="no variant 'quack'"):
        parse("configs/gopro.py:quack")


def test_a_process_whose_copy_of_the_photos_lacks_some_is_told_before_it_trains(monkeypatch):
    def opened(blurry):
        unknown = SimpleNamespace(blur=range(blurry), sharp=range(9_600))
        seen = {"known": SimpleNamespace(train=range(2_103)), "unknown": unknown}
        return SimpleNamespace(**seen, workdir=Path("run"), trained=lambda name: False)

    told = {}
    client = SimpleNamespace(key_value_set=told.setdefault, blocking_key_value_get=lambda name, patience: told[name])
    monkeypatch.setattr(sharding.distributed.global_state, "client", client)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(main, "work_names", lambda run: ["translator"])
    for name in ("check", "enable_compilation_cache", "run_stage", "show"):
        monkeypatch.setattr(main, name, lambda *_: None)
    for name in ("wait_for_all", "first_alone"):
        monkeypatch.setattr(sharding, name, lambda *_: None)
    for first in (True, False):
        monkeypatch.setattr(sharding, "is_first", lambda first=first: first)
        main.run_stages(opened(14_400))
    wanted = "the first process finds 2,103 known train, 14,400 unknown blur, 9,600 .* this one 2,103 .* 14,399 unknown"
    with pytest.raises(UserError, match=wanted):
        main.run_stages(opened(14_399))
