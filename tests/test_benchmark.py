"""The benchmark: what it counts and times is what it says, and the tool runs from its command line to its file."""

import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from helpers import FLAGS, forked

from b2b_jax.errors import UserError
from b2b_jax.models.convolution import conv
from tools.bench import exports, frames, measure, profiling

ROOT = Path(__file__).parents[1]


TINY = ("--config.translator.batch=2", "--config.translator.generator.base_channels=4", "--config.translator.crop=48")


def benchmark(*arguments: str) -> subprocess.CompletedProcess:
    env = os.environ | {"XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tools" / "benchmark.py"), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


def test_calls_take_turns_and_neither_the_warm_up_nor_the_first_of_a_turn_counts():
    order = []
    calls = {
        name: lambda name=name: order.append(name) or time.sleep(0.02 if name == "slow" else 0)
        for name in ("slow", "fast")
    }
    seconds = measure.sample(calls, repeats=3, warm_up=2)
    expected = [(name, count) for count in (2, 3, 2) for name in calls]  # warm-up; two timed in a turn, then one
    assert [(name, len(list(group))) for name, group in itertools.groupby(order)] == expected
    assert [len(times) for times in seconds.values()] == [3, 3]
    assert min(seconds["slow"]) >= 0.02 > min(seconds["fast"])
    order.clear()
    assert len(measure.sample({"fast": calls["fast"]}, repeats=3, warm_up=1)["fast"]) == 3
    assert len(order) == 4  # alone, every run counts


def test_operations_of_a_convolution_and_its_gradient_are_counted_by_hand():
    x, kernel = jnp.zeros((2, 16, 16, 4)), jnp.zeros((3, 3, 4, 8))
    taps = (3 * 16 - 2) ** 2  # of one image and one pair of channels: those at the border fall on nothing
    loss = jax.jit(jax.grad(lambda kernel: jnp.sum(conv(x, kernel, padding=1))))
    assert measure.cost(jax.jit(lambda x, k: conv(x, k, padding=1)), x, kernel)["flop"] == 2 * 2 * taps * 4 * 8
    # The gradient of a sum needs no forward pass.
    assert measure.cost(loss, kernel)["flop"] == pytest.approx(2 * 2 * taps * 4 * 8, rel=0.01)


def test_memory_of_a_program_is_that_of_what_it_holds():
    x, before = jnp.zeros((1024, 1024)), jax.config.jax_compilation_cache_dir
    donated = measure.compiled(jax.jit(lambda x: x + 1, donate_argnums=0), x)
    kept = measure.compiled(jax.jit(lambda x: x + 1), x)
    assert (donated.memory, kept.memory) == (x.nbytes, 2 * x.nbytes)
    assert jax.config.jax_compilation_cache_dir == before


def test_table_has_rates_and_leaves_out_columns_without_values():
    rows = [
        measure.Row("step", 4, seconds=0.5, fastest=0.4, slowest=0.6, flop=1e12),
        measure.Row("read", 1, seconds=0.1),
    ]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in measure.table(rows, 8.0).splitlines()]
    step = dict(zip(lines[0], lines[2], strict=True))
    assert "compile, s" not in step
    assert (step["images/s"], step["TFLOP/s"], step["of peak"]) == ("8", "2", "25.0%")
    assert dict(zip(lines[0], lines[3], strict=True))["of peak"] == ""


@pytest.mark.parametrize("stage", ["deblurrer", pytest.param("translator", marks=pytest.mark.slow)])
def test_train_writes_what_it_prints(stage, tmp_path):
    path = tmp_path / "out.json"
    options = (f"--stage={stage}", "--repeats=2", "--peak_tflops=1", f"--output={path}")
    run = benchmark("train", "--config=configs/demo.py:quick", *TINY, "--config.deblurrer.batch=2", *options)
    assert run.returncode == 0, run.stderr
    record = json.loads(path.read_text())
    (row,) = record["rows"]
    assert (row["work"], row["images"]) == (f"train {stage}", 2)
    assert row["fastest"] <= row["seconds"] <= row["slowest"] and row["pipelined"] > 0
    assert row["tflops"] == pytest.approx(row["flop"] / row["seconds"] / 1e12)
    assert row["warm"] < row["cold"]
    assert record["machine"]["jax"] == jax.__version__
    assert f"| {row['images_per_second']:.4g} |" in run.stdout


@pytest.mark.slow
def test_profile_tells_the_networks_apart_and_leaves_a_trace(tmp_path):
    path = tmp_path / "out.json"
    options = ("--stage=deblurrer", f"--trace={tmp_path / 'trace'}", f"--output={path}")
    run = benchmark("profile", "--config=configs/demo.py:quick", *TINY, *options)
    assert run.returncode == 0, run.stderr
    share = {row["work"]: row["share"] for row in json.loads(path.read_text())["rows"]}
    assert min(share["NAFNet"], share["NAFNet, backward"]) > 0.1
    assert sum(value for name, value in share.items() if not name.startswith("operation")) == pytest.approx(1)
    assert not {f"operation {holder}" for holder in ("call", "while", "conditional")} & share.keys()
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))


def test_gpu_kernels_count_under_their_operations():
    def line(name: str, *events: tuple[str, str]) -> SimpleNamespace:
        told = [SimpleNamespace(name=n, stats=[("hlo_op", op)], duration_ns=1e9) for n, op in events]
        return SimpleNamespace(name=name, events=told)

    device = [
        line("Stream #1", ("loop_add_fusion_3", "loop_add_fusion.3"), ("sm90_x", "conv.2")),
        line("Steps", ("", "s")),
    ]
    host = [line("python", ("launch", "conv.2"))]
    planes = [
        SimpleNamespace(name=name, lines=lines) for name, lines in (("/host:CPU", host), ("/device:GPU:0", device))
    ]
    found = [event.operation for event in profiling.events(SimpleNamespace(planes=planes))]
    assert found == ["loop_add_fusion.3", "conv.2"]


@pytest.mark.slow
def test_data_times_the_pipeline_its_parts_and_the_plain_loop(tmp_path):
    path = tmp_path / "out.json"
    options = ("--repeats=1", "--photos=1", "--config.data.crops_per_image=3", f"--output={path}")
    run = benchmark("data", "--config=configs/demo.py:quick", *TINY, *options)
    assert run.returncode == 0, run.stderr
    rows = {row["work"]: row for row in json.loads(path.read_text())["rows"]}
    parts = [f"part: {name}" for name in ("read", "decode", "crop", "batch", "transfer")]
    whole = [f"pipeline, crops of a photo: {crops}, threads: {threads}" for crops in (1, 2, 3, 4) for threads in (1, 2)]
    wanted = [f"{way}, {suffix}" for suffix in ("png", "jpg") for way in ("plain loop", *parts, *whole)]
    assert list(rows) == wanted
    for work, row in rows.items():
        loop = rows[f"plain loop, {work[-3:]}"]["images_per_second"]
        share = row["images_per_second"] / loop if work.startswith("pipeline") else None
        assert row["times_loop"] == (share and pytest.approx(share)) and row["times_step"] is None


def test_evaluate_scores_its_photos_at_every_call():
    config = ("--config=configs/demo.py:quick", "--config.translator.generator.base_channels=4")
    run = benchmark("evaluate", *config, "--config.evaluation.batch=2", "--size=32x32", "--repeats=1")
    assert run.returncode == 0, run.stderr
    assert "| deblurrer and blur2blur, scored | 2 |" in run.stdout
    assert run.stderr.count("evaluation: one batch: 100%") >= 4  # three to warm up


def test_deblur_takes_turns_with_pytorch():
    pytest.importorskip("torch")
    config = ("--config=configs/demo.py:quick", "--config.translator.generator.base_channels=4")
    run = benchmark("deblur", *config, "--size=32x32", "--repeats=1", "--against=torch")
    assert run.returncode == 0, run.stderr
    assert [line.split(" |")[0] for line in run.stdout.splitlines() if ", b2b" in line or "PyTorch" in line] == [
        f"| {network}, {side}"
        for network in ("MIMOUNet", "NAFNet")
        for side in ("b2b_jax", "PyTorch, eager", "PyTorch, torch.compile")
    ]


MISTAKES = {
    "got fly": ["fly"],
    "--size is '12'": ["deblur", "--config=configs/demo.py", "--size=12"],
    "--trace goes with profile": ["train", "--config=configs/demo.py", "--trace=folder"],
    "--against goes with train and deblur": ["data", "--config=configs/demo.py", "--against=torch"],
    "No configuration. Usage: python tools/benchmark.py": ["train"],
}


WITHOUT_TORCH = f"""
import runpy, sys
sys.modules["torch"] = None
runpy.run_path({str(ROOT / "tools" / "benchmark.py")!r}, run_name="__main__")
"""


def test_a_mistake_gives_one_line(tmp_path):
    (tmp_path / "benchmark.py").write_text(WITHOUT_TORCH)
    commands = [[str(ROOT / "tools" / "benchmark.py"), *arguments] for arguments in MISTAKES.values()]
    commands += [[str(tmp_path / "benchmark.py"), "train", "--config=configs/demo.py", "--against=torch"]]
    for said, one in zip([*MISTAKES, "pip install 'b2b_jax[torch]'"], forked.run_each(commands), strict=True):
        assert one.code == 2
        assert said in one.err and one.err.count("\n") == 1


def test_mistakes_of_the_smaller_tools_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(frames, "TRAINING", range(1))
    monkeypatch.setattr(frames, "TEST", range(100, 101))
    monkeypatch.setattr(frames, "FRAMES", 2)
    missing = ["--deblurrer", str(tmp_path / "missing"), "--output", str(tmp_path / "frames")]
    assert frames.main(missing) == 2
    assert capsys.readouterr().err.startswith("No weights at")
    for name, said in {"nafnet:width=a": "invalid literal", "nafnet:wdth=8": "did you mean 'width'?"}.items():
        with pytest.raises(UserError, match=f"{name}: .*{re.escape(said)}"):
            exports.opened(name)
