"""The paper's tables from runs, the ablations' configurations, and the sweep that runs them."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from helpers import forked

from b2b_jax import models, sweep
from b2b_jax import tables as commands
from b2b_jax.errors import UserError
from b2b_jax.evaluation import tables
from b2b_jax.networks import WEIGHTS
from b2b_jax.stages import translator
from configs import ablations, baselines, reds

ROOT = Path(__file__).parents[1]
SWEEP = ROOT / "b2b_jax" / "sweep.py"


def write_run(folder, dataset, psnr, network="nafnet", ablation="", seed=0, weights="", **results):
    folder.mkdir()
    config = {
        "seed": seed,
        "evaluation": {"ablation": ablation},
        "data": {"scenes": {"test": 64, "size": 160}, "root": str(folder)},
        "known_blur": {"source": "synthetic"},
        "deblurrer": {"network": {"name": network}, "weights": weights},
        "blur_extractor": {},
        "translator": {"steps": 600},
    }
    rows = {row: {"psnr": value, "ssim": value / 40} for row, value in psnr.items()}
    (folder / "config.json").write_text(json.dumps(config))
    found = {"dataset": dataset, "rows": rows, "protocol": "standard", "protocol_text": "RGB"}
    (folder / "results.json").write_text(json.dumps(found | results))
    return folder


@pytest.fixture
def folders(tmp_path):
    accuracies = {"input": {"acc1": 0.1, "acc2": 0.2}, "converted": {"acc1": 0.9, "acc2": 0.85}}
    return [
        write_run(tmp_path / "a", "reds", {"deblurrer": 25.0, "blur2blur": 27.0}, converter=accuracies),
        write_run(tmp_path / "b", "reds", {"deblurrer": 26.0, "blur2blur": 28.0}, seed=1),
        write_run(tmp_path / "c", "scenes", {"deblurrer": 20.0, "blur2blur": 22.0}, network="restormer"),
        write_run(tmp_path / "d", "reds", {"deblurrer": 10.0, "blur2blur": 24.0}, ablation="ratio,0.7"),
        write_run(tmp_path / "e", "reds", {"deblurrer": 10.0, "blur2blur": 23.0}, ablation="ratio,0.65"),
    ]


def line(text, start):
    return next(line for line in text.splitlines() if line.startswith(start))


def test_every_cell_has_our_value_and_the_papers(folders):
    grids = tables.make(tables.read(folders))
    assert [grid.title[:7] for grid in grids] == [f"Table {i}" for i in range(1, 7)]
    methods, ratio = tables.markdown(grids[1]), tables.markdown(grids[2])
    assert line(methods, "|  |") == "|  | RB2V_Street | REDS | RSBlur | GoPro | 64 scenes of 160 px |"
    cells = line(methods, "| Blur2Blur + NAFNet |").split(" | ")
    assert cells[1:3] == ["[26.98 / 0.812]", "27.50 / 0.688 ± 0.50 / 0.012 (2 runs) [28.11 / 0.893]"] and cells[4:] == [
        "",
        " |",
    ]
    assert line(methods, "| Blur2Blur + Restormer |").endswith("[28.89 / 0.850] |  | 22.00 / 0.550 |")
    assert line(ratio, "| 0.7 |").split(" | ")[2] == "24.00 / 0.600 [28.10]"
    assert line(ratio, "| 0.65 |").split(" | ")[2] == "23.00 / 0.575"
    assert line(ratio, "| 0.6 |").split(" | ")[2] == "[28.11]"
    assert line(tables.markdown(grids[5]), "| converted |").split(" | ")[1:3] == ["[86.67 / 96.53]", "90.00 / 85.00"]


@pytest.mark.parametrize(
    "damage",
    [
        {"rows": {"deblurrer": 3}},
        {"rows": {"deblurrer": {"psnr": 25.0}}},
        {"rows": {"blur2blur": {"psnr": "high", "ssim": 0.7}}},
        {"rows": []},
        {"dataset": ["reds"]},
        {"converter": {"input": {"acc1": None, "acc2": 0.5}}},
        {"protocol": None},
    ],
)
def test_a_damaged_result_is_left_out(folders, damage, capsys):
    path = folders[0] / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    assert [run.folder for run in tables.read(folders)] == folders[1:]
    assert commands.main([str(folders[0])]) == 2 and "no finished run with scores" in capsys.readouterr().err
    assert commands.main([*map(str, folders)]) == 0 and str(folders[0]) in capsys.readouterr().err


def test_a_given_deblurrer_stands_in_its_own_row(tmp_path):
    scores = {"deblurrer": 25.0, "blur2blur": 27.0}
    run = write_run(tmp_path / "r", "reds", scores, evaluation={"deblurrer": "restormer"})
    methods = tables.markdown(tables.make(tables.read([run]))[1])
    assert line(methods, "| Blur2Blur + Restormer |").split(" | ")[2].startswith("27.00")
    assert line(methods, "| Blur2Blur + NAFNet |").split(" | ")[2] == "[28.11 / 0.893]"


def test_runs_of_different_recipes_are_not_averaged(folders):
    path = folders[1] / "config.json"
    path.write_text(path.read_text().replace('"steps": 600', '"steps": 20'))
    with pytest.raises(
        UserError, match=r"a and .*b belong in one cell but differ in translator\.steps; give one of them"
    ):
        tables.make(tables.read(folders))
    tables.make(tables.read(folders[1:]))


def change(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("results.json", {"protocol": "nafnet", "protocol_text": "3-D"}, "but differ in protocol, protocol_text;"),
        ("results.json", {"images": 4}, "but differ in images;"),
        ("results.json", {"evaluation": {"photos": "0a1b"}}, "but differ in test photos;"),  # of an earlier start
        ("config.json", {"evaluation": {"fixed_filter_images": 2}}, "but differ in evaluation.fixed_filter_images;"),
        ("config.json", {"seed": 0}, "and have one seed, 0: they are no repetitions; give one of them"),
    ],
)
def test_runs_that_were_scored_otherwise_or_have_one_seed_are_not_averaged(folders, name, values, told):
    change(folders[1], name, **values)
    with pytest.raises(UserError, match=f"a and .*b belong in one cell {re.escape(told)}"):
        tables.make(tables.read(folders[:2]))


def test_a_folder_that_is_given_twice_counts_once(folders, capsys, monkeypatch):
    monkeypatch.chdir(folders[0].parent)
    assert commands.main([str(folders[0]), "a", str(folders[1])]) == 0
    printed = capsys.readouterr()
    assert "(2 runs)" in printed.out and printed.err == "Folders given more than once, counted once: 1\n"


def given_to_two_runs(tmp_path, first, second):
    """Runs of seeds 0 and 1 whose deblurrers are the files."""
    files = zip((first, second), "ab", strict=True)
    evaluations = ({"weights": {"deblurrer": str(file)}} for file in (first, second))
    return [
        write_run(tmp_path / name, "reds", {"deblurrer": 25.0 + i}, seed=i, weights=str(file), evaluation=evaluation)
        for i, ((file, name), evaluation) in enumerate(zip(files, evaluations, strict=True))
    ]


def test_published_weights_are_compared(tmp_path):
    with pytest.raises(UserError, match=r"differ in deblurrer\.weights"):
        tables.make(tables.read(given_to_two_runs(tmp_path, "gopro.safetensors", "rsblur.safetensors")))
    (tmp_path / "again").mkdir()
    tables.make(tables.read(given_to_two_runs(tmp_path / "again", "gopro.safetensors", "gopro.safetensors")))


@pytest.mark.parametrize("change_maker", [False, True])
@pytest.mark.parametrize("moved", [False, True])
def test_weights_of_runs_that_differ_in_their_seed_are_repetitions(tmp_path, change_maker, moved):
    makers = [write_run(tmp_path / f"deblurrer_{i}", "reds", {}, seed=i) for i in range(2)]
    if change_maker:
        config = json.loads((makers[1] / "config.json").read_text())
        change(makers[1], "config.json", deblurrer=config["deblurrer"] | {"steps": 5})
    before = Path("/gone") if moved else tmp_path
    runs = given_to_two_runs(tmp_path, *(before / maker.name / "deblurrer" / WEIGHTS for maker in makers))
    runs.append(write_run(tmp_path / "own", "reds", {"deblurrer": 27.0}, seed=2))  # trains its deblurrer itself
    if not change_maker:
        assert "(3 runs)" in tables.markdown(tables.make(tables.read(runs))[1])
        return
    with pytest.raises(UserError, match=r"differ in deblurrer\.weights"):
        tables.make(tables.read(runs))


def test_scenes_of_another_size_have_a_column_of_their_own(folders):
    path = folders[2] / "config.json"
    path.write_text(path.read_text().replace('"size": 160', '"size": 80'))
    grid = tables.make(tables.read(folders))[1]
    assert grid.columns[4:] == ["64 scenes of 80 px"]


def test_nothing_run_leaves_the_papers_values_alone():
    grids = tables.make([])
    assert sum(bool(cell.ours) for grid in grids for row in grid.cells for cell in row) == 0
    assert sum(bool(cell.paper) for grid in grids for row in grid.cells for cell in row) == 12 + 12 * 3 + 10 + 3 + 4 + 2


def test_the_formats_hold_the_same_numbers(folders):
    grid = tables.make(tables.read(folders))[1]
    rows = {(row["row"], row["column"]): row for row in csv.DictReader(tables.comma_separated(grid).splitlines())}
    found = rows["Blur2Blur + NAFNet", "REDS"]
    assert (found["PSNR"], found["SSIM"], found["runs"]) == ("27.5000", "0.6875", "2")
    assert (found["error of PSNR"], found["error of SSIM"]) == ("0.5000", "0.0125")
    assert (found["paper PSNR"], found["paper SSIM"]) == ("28.1100", "0.8930")
    assert rows["NAFNet", "GoPro"]["PSNR"] == "" and len(rows) == len(grid.rows) * len(grid.columns)
    latex = tables.latex(grid)
    assert r"RB2V\_Street" in latex and r"27.50 / 0.688 ± 0.50 / 0.012 (2 runs) [28.11 / 0.893]" in latex
    assert latex.count(r"\\") == 1 + len(grid.rows) and r"\begin{tabular}{lrrrrr}" in latex


def test_the_command_line_prints_or_explains(folders, tmp_path):
    orders = [[*folders, "--format", "csv"], [tmp_path, folders[0]], [tmp_path]]
    done, unfinished, wrong = forked.run_each([["b2b_jax/tables.py", *map(str, order)] for order in orders])
    assert done.code == 0 and "Table 6: Acc1 / Acc2,converted,REDS,90.0000,85.0000,,,1,," in done.out
    assert unfinished.code == 0 and "Table 6" in unfinished.out
    assert unfinished.err == f"Left out, without a finished run: {tmp_path}\n"
    assert wrong.code == 2 and wrong.err.count("\n") == 1 and "no finished run" in wrong.err
    with pytest.raises(UserError, match="no finished run"):
        tables.read([tmp_path])


def test_rivals_have_rows_of_their_own(tmp_path):
    folders = [
        write_run(tmp_path / "a", "reds", {"deblurrer": 22.0}, ablation="rival,bsrgan"),
        write_run(tmp_path / "b", "reds", {"cyclegan": 21.0}, ablation="rival,cyclegan"),
        write_run(tmp_path / "c", "reds", {"paired": 29.0}, ablation="rival,paired"),
        write_run(tmp_path / "d", "reds", {"deblurrer": 25.0, "paired": 31.0, "adapted": 27.0}, seed=1),
    ]
    text = tables.markdown(tables.make(tables.read(folders))[1])
    found = {name: line(text, f"| {name} |").split(" | ")[2] for name in ("NAFNet on BSRGAN's degradation", "NAFNet")}
    assert found["NAFNet on BSRGAN's degradation"] == "22.00 / 0.550 [26.39 / 0.803]"
    assert found["NAFNet"] == "25.00 / 0.625 [25.80 / 0.880]"
    assert line(text, "| NAFNet on pairs |").split(" | ")[2].startswith("30.00 / 0.750 ± 1.00")
    assert line(text, "| CycleGAN |").split(" | ")[2] == "21.00 / 0.525 [23.92 / 0.775]"
    assert line(text, "| NAFNet adapted to the learnt camera |").split(" | ")[2] == "27.00 / 0.675"


def test_every_row_of_the_baselines_is_in_the_table():
    rivals = {name for row in (*tables.DEBLURRED.values(), *tables.UNPAIRED.values()) for name in row.rivals}
    assert rivals == {"" if name == "blur2blur" else name for name in baselines.ROWS}


@pytest.mark.parametrize("ablation", ["", "rival,cyclegan"])
def test_table_1_counts_a_runs_photos(tmp_path, ablation):
    run = write_run(tmp_path / "a", "reds", {"deblurrer": 25.0}, ablation=ablation, images=3000)
    piles = {name: {"photos": count} for name, count in (("unknown_blur", 14000), ("unknown_sharp", 10000))}
    (run / "split.json").write_text(json.dumps(piles))
    text = tables.markdown(tables.make(tables.read([run]))[0])
    assert line(text, "| blurry photos B |").split(" | ")[1:3] == ["[5,400]", "14,000 [14,400]"]
    assert line(text, "| test pairs |").split(" | ")[2] == "3,000 [3,000]"


# ------------------------------------------------------------------------------------------------------------ ablations


def test_an_ablation_changes_its_key_and_says_so():
    config = ablations.get_config("ratio,0.7")
    assert (config.data.unknown, config.data.split_ratio) == ("reds", 0.7)
    config.data.split_ratio, config.evaluation.ablation = 0.6, ""
    assert config.to_dict() == reds.get_config().to_dict()
    assert ablations.get_config("generator,mimo_unet_plus,rsblur").translator.generator.num_res == 20
    scenes = ablations.get_config("ratio,0.75,demo").data.scenes
    assert (scenes.blur, scenes.sharp) == (900, 300)
    assert ablations.get_config("ratio,0.75,quick").data.scenes.blur == 36
    assert [ablations.get_config(f"size,0.5,{base}").data.share for base in ("demo", "rsblur")] == [0.5, 0.5]
    assert ablations.get_config("generator,unet").translator.generator.scales == 3
    assert ablations.get_config("ratio,.70").evaluation.ablation == "ratio,0.7"
    assert ablations.get_config("size,1.0,demo").evaluation.ablation == "size,1"


@pytest.mark.parametrize("name", ablations.GENERATORS)
def test_a_generator_can_be_trained_as_a_translator(name):
    config = ablations.get_config(f"generator,{name},demo").translator
    generator = models.create(**config.generator.to_dict())
    translator.check_generator(generator, config.crop)
    scales = jax.eval_shape(lambda x: generator.init_with_output(jax.random.key(0), x)[0], jnp.zeros((1, 48, 48, 3)))
    shapes = [x.shape for x in scales] if isinstance(scales, list) else [scales.shape]
    assert shapes == [(1, side, side, 3) for side in (12, 24, 48)][-len(shapes) :]
    assert len(shapes) == (1 if name == "nafnet" else 3)


def test_the_rows_of_the_tables_are_cells_of_the_ablations():
    assert set(tables.ABLATIONS) == set(ablations.CELLS)
    for name, (_, values, _) in tables.ABLATIONS.items():
        for value in values:
            assert ablations.get_config(f"{name},{value},demo").evaluation.ablation == f"{name},{value}"


@pytest.mark.parametrize(
    "variant", ["", "ratio", "ratio,2", "ratio,x", "depth,1", "ratio,0.5,moon", "size,0", "generator,gan"]
)
def test_a_cell_that_is_none_is_told(variant):
    with pytest.raises(ValueError, match=r"configs/ablations\.py"):
        ablations.get_config(variant)


# ---------------------------------------------------------------------------------------------------------------- sweep


def append(path, text):
    return f"{sys.executable} -c \"open('{path}', 'a').write('{text}')\""


def start(file):
    return subprocess.Popen([sys.executable, SWEEP, file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_sweep_runs_what_is_left(tmp_path):
    file, log = tmp_path / "cells.txt", tmp_path / "log"
    lines = [
        "# a comment",
        append(log, "a"),
        "",
        f"{sys.executable} -c 'raise SystemExit(3)'",
        "no-such-program",
        append(log, "b"),
    ]
    file.write_text("\n".join(lines))
    first = start(file)
    output, errors = first.communicate(timeout=60)
    assert first.returncode == 1 and log.read_text() == "ab" and "cannot be started" in errors
    assert "exit code 3" in output and "2 of 4 done" in output and output.count("failed:") == 2
    file.write_text("\n".join([lines[1], append(log, "c"), lines[5]]))
    again = start(file)
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0 and log.read_text() == "abc" and output.count("done before") == 2


def test_a_stopped_sweep_stops_its_command_and_goes_on_with_it(tmp_path):
    file, log = tmp_path / "cells.txt", tmp_path / "log"
    program = tmp_path / "program.py"
    program.write_text(
        "import pathlib, signal, sys, time\n"
        f"log = pathlib.Path({str(log)!r})\n"
        "signal.signal(signal.SIGTERM, lambda *_: (log.write_text('saved'), sys.exit(143)))\n"
        "first = not log.exists()\n"
        "log.write_text('started' if first else log.read_text() + ', resumed')\n"
        "time.sleep(60 if first else 0)\n"
    )
    file.write_text(f"{sys.executable} {program}\n{append(log, ', next')}")
    process = start(file)
    while not log.exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143 and log.read_text() == "saved"
    again = start(file)
    again.communicate(timeout=60)
    assert again.returncode == 0 and log.read_text() == "saved, resumed, next"


EARLY = """
import signal, subprocess, sys
from b2b_jax import sweep
start = subprocess.Popen
def started(*args, **options):
    child = start(*args, **options)
    signal.raise_signal(signal.SIGTERM)  # before the sweep has the command's number
    return child
subprocess.Popen = started
sys.exit(sweep.run("sleep 300"))
"""


def test_a_signal_while_a_command_starts_reaches_it():
    assert subprocess.run([sys.executable, "-c", EARLY], timeout=100).returncode == 128 + signal.SIGTERM


WAITING = """
import pathlib, signal, sys, time
log = pathlib.Path(sys.argv[1])
def end(number, frame):
    log.write_text(f"{number}")
    sys.exit(128 + number)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, end)
log.write_text("started")
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a process of its parent's end")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_a_command_does_not_outlive_its_sweep(tmp_path, number):
    file, log = tmp_path / "cells.txt", tmp_path / "log"
    (tmp_path / "program.py").write_text(WAITING)
    file.write_text(f"{sys.executable} {tmp_path / 'program.py'} {log}")
    process = start(file)
    while not log.exists() or log.read_text() != "started":
        time.sleep(0.02)
    process.send_signal(number)
    process.wait(timeout=20)
    deadline = time.monotonic() + 20
    wanted = signal.SIGTERM if number == signal.SIGKILL else number
    while log.read_text() != f"{int(wanted)}":
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    assert process.returncode == (129 if number == signal.SIGHUP else -number)


def test_a_commands_name_cannot_command_the_terminal(tmp_path):
    file = tmp_path / "cells.txt"
    file.write_text("no-such-\x1b[2J-program\n")
    output, errors = start(file).communicate(timeout=60)
    assert "\x1b" not in output + errors and "no-such-\\x1b[2J-program" in output


def test_a_list_that_is_not_there_is_told(tmp_path):
    process = start(tmp_path / "none.txt")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and errors.count("\n") == 1 and "cannot be read" in errors


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_sweep_opens_nothing_but_files(tmp_path, capsys, kind):
    path = tmp_path / "commands"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    assert sweep.main([str(path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error and "wanted a file with a command per line" in error and error.count("\n") == 1
