"""Times the parts of a configuration on this machine's device: a Markdown table, and a JSON file if asked for.

    python tools/benchmark.py train --config configs/demo.py:gpu --config.translator.batch=32 --output train.json

train      the training step of --stage, as the stage builds it
deblur     a photo of --size through translator and deblurrer, compiled; reading and writing it; with --against torch
           each network in turns with PyTorch's, eager and compiled
data       crops of 1280x720 photos, PNG and JPEG: the input pipeline, its parts, and a plain loop with Pillow
evaluate   photos of --size through the evaluation: two networks' results scored
profile    where the time of the training step of --stage goes, by network and by kind of operation
compile    only the compilation of all programs above
cost       only XLA's count of operations of them, for a GPU; nothing is compiled

Networks have random weights, photos are random or generated: no dataset, no download. Medians of --repeats.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

sys.path.append(str(Path(__file__).parents[1]))

from b2b_jax import commandline, extras, images, levels, memory, networks, settings
from b2b_jax.data import scenes
from b2b_jax.data.sources import ArraySource
from b2b_jax.errors import UserError
from b2b_jax.evaluation import protocols, scoring
from b2b_jax.evaluation.evaluate import make_setup
from b2b_jax.files import write_json
from b2b_jax.stages.run import Run
from tools.bench import feeding, measure, profiling, steps
from tools.bench.measure import Row

USAGE = "Usage: python tools/benchmark.py WORK --config configs/NAME.py[:VARIANT] [--config.KEY=VALUE …]"
OPTIONS = {
    "output": flags.DEFINE_string("output", None, "JSON file to write."),
    "repeats": flags.DEFINE_integer("repeats", 20, "Calls of which the median is taken.", lower_bound=1),
    "stage": flags.DEFINE_enum("stage", "translator", tuple(steps.TASKS), "Whose training step."),
    "size": flags.DEFINE_string("size", "1280x720", "Width and height in pixels of a photo to deblur or evaluate."),
    "photos": flags.DEFINE_integer("photos", 32, "Files that `data` makes of each format.", lower_bound=1),
    "trace": flags.DEFINE_string("trace", None, "Folder for the trace of `profile`: TensorBoard and Perfetto read it."),
    "step": flags.DEFINE_bool("step", False, "`data` also times the training step of --stage, and compares."),
    "peak_tflops": flags.DEFINE_float("peak_tflops", 0.0, "Of one device; 0: of the known chips.", lower_bound=0.0),
    "against": flags.DEFINE_enum(
        "against", None, ("torch",), "Time this, too, in turns with ours, in train or deblur."
    ),
}
FRAME = (720, 1280)  # height and width of the photos of `data`

Calls = Mapping[str, Callable[[], object]]


def command() -> int:
    """Runs the command line; returns its exit code."""
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__, USAGE, commandline.described(*OPTIONS.values()), sep="\n")
        return 0

    def measure_and_report() -> None:
        work, run = parse()
        report(work, list(WORKS[work](run)))

    deblurs = sys.argv[1:2] == ["deblur"]
    return commandline.outcome(measure_and_report, keep=memory.keep if deblurs else memory.keep_for_training)


def parse() -> tuple[str, Run]:
    """The work and the run that its configuration describes; UserError for a mistake in the command."""
    words = [word for word in sys.argv[1:2] if not word.startswith("-")]
    if not words or words[0] not in WORKS:
        got = words[0] if words else "nothing"
        raise UserError(f"What to time? One of {', '.join(WORKS)} must come first, got {got}. {USAGE}")
    del sys.argv[1]
    try:
        run = commandline.parse()
    except UserError as error:
        raise UserError(str(error).replace(commandline.USAGE, USAGE)) from error
    settings.check_values(run.config)
    if OPTIONS["against"].value:
        if words[0] not in ("train", "deblur"):
            raise UserError(f"--against goes with train and deblur, not with {words[0]}")
        extras.need("torch", "--against=torch times PyTorch, which is not installed: pip install 'b2b_jax[torch]'")
    if OPTIONS["trace"].value and words[0] != "profile":
        raise UserError(f"--trace goes with profile, not with {words[0]}")
    return words[0], run


def report(work: str, rows: list[Row]) -> None:
    """Prints the table and writes the file."""
    peak = measure.peak(OPTIONS["peak_tflops"].value)
    facts = measure.machine() | {"repeats": OPTIONS["repeats"].value}
    print(measure.table(rows, peak))
    print(f"\n{', '.join(f'{name} {value}' for name, value in facts.items())}")
    if OPTIONS["output"].value:
        record = {
            "work": work,
            "config": commandline.config_path(),
            "rows": measure.as_json(rows, peak),
            "machine": facts,
        }
        write_json(Path(OPTIONS["output"].value), record)


# ------------------------------------------------------------------------------------------------------------- programs


def restorer(run: Run) -> tuple[Callable, tuple]:
    """Translator, then deblurrer, as one jitted function of both weights and a batch of photos; and the weights."""
    first, second = steps.network(run, "translator"), steps.network(run, "deblurrer")

    @jax.jit
    def restore(variables: tuple, x: jax.Array) -> jax.Array:
        translated = networks.apply(first.module, variables[0], x)
        return networks.apply(second.module, variables[1], translated)

    return restore, jax.device_put((first.variables, second.variables))


def size() -> tuple[int, int]:
    """Height and width of --size."""
    width, _, height = OPTIONS["size"].value.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UserError(f"--size is {OPTIONS['size'].value!r}; write width x height in pixels, as 1280x720")
    return int(height), int(width)


# ---------------------------------------------------------------------------------------------------------------- works


def train(run: Run) -> Iterator[Row]:
    """The training step and, if asked for, the same in PyTorch."""
    rivals = torch_calls(run) if OPTIONS["against"].value else {}
    stage = OPTIONS["stage"].value
    function, arguments = steps.step_and_arguments(run, stage)
    program = measure.compiled(function, *arguments)
    step = repeated(program.call, arguments)
    repeats = OPTIONS["repeats"].value
    batch, seconds = run.config[stage].batch, measure.sample({stage: step, **rivals}, repeats)
    ours = measure.row(f"train {stage}", batch, seconds.pop(stage), program)
    yield replace(ours, pipelined=measure.pipelined(step, repeats))
    for name, times in seconds.items():
        yield measure.row(name, batch, times)


def repeated(program: Callable, arguments: tuple) -> Callable[[], dict]:
    """Calls of a step's program, each on the state that the last one left."""
    state, *others = arguments

    def step() -> dict:
        nonlocal state
        state, metrics = program(state, *others)
        return metrics

    return step


def profile(run: Run) -> Iterator[Row]:
    """Where the training step's time goes."""
    stage = OPTIONS["stage"].value
    function, arguments = steps.step_and_arguments(run, stage)
    program = profiling.compiled(function, *arguments)
    yield from profiling.rows(program, repeated(program, arguments), run.config[stage].batch, OPTIONS["trace"].value)


def deblur(run: Run) -> Iterator[Row]:
    """A photo of --size restored on the device; its decoding and encoding; each network and the same in PyTorch."""
    photo = generated(1, *size())[0]
    if OPTIONS["against"].value:
        yield from deblur_against_torch(run, levels.to_float(photo)[None])
        return
    restore, variables = restorer(run)
    x = jax.device_put(levels.to_float(photo)[None])
    program = measure.compiled(restore, variables, x)
    repeats, call = OPTIONS["repeats"].value, lambda: program.call(variables, x)
    ours = measure.row("translator + deblurrer", 1, measure.sample({"": call}, repeats)[""], program)
    yield replace(ours, pipelined=measure.pipelined(call, repeats))
    with tempfile.TemporaryDirectory() as folder:
        for path in (Path(folder) / f"photo.{suffix}" for suffix in ("png", "jpg")):
            calls = {"write": lambda path=path: images.write(path, photo), "read": lambda path=path: images.read(path)}
            for name, times in measure.sample(calls, repeats).items():
                yield measure.row(f"{name} {path.suffix}", 1, times)


def deblur_against_torch(run: Run, x: np.ndarray) -> Iterator[Row]:
    """Translator and deblurrer on photos (1, h, w, 3), from the host's memory and back, each in turns with PyTorch."""
    from tools.bench import torch_inference

    for stage in ("translator", "deblurrer"):
        chosen = steps.network(run, stage)
        rivals = torch_inference.runs(chosen, run.dtype.name)
        ours = networks.runner(chosen._replace(variables=jax.device_put(chosen.variables)))
        calls = {"b2b_jax": lambda ours=ours: np.asarray(ours(x))}
        calls |= {name: lambda call=call: call(x) for name, call in rivals.items()}
        for name, times in measure.sample(calls, OPTIONS["repeats"].value).items():
            yield measure.row(f"{type(chosen.module).__name__}, {name}", 1, times)


def data(run: Run) -> Iterator[Row]:
    """Crops from files, and what the training step could take if asked for."""
    eaten = None
    if OPTIONS["step"].value:
        (step,) = train(run)
        yield step
        # Each image of a step is made of as many photos as the batch has names.
        eaten = len(steps.photos_of(run, OPTIONS["stage"].value)) * step.images / step.seconds
    photos = generated(OPTIONS["photos"].value, *FRAME)
    yield from feeding.rows(run.config, photos, OPTIONS["repeats"].value, eaten)


def evaluate(run: Run) -> Iterator[Row]:
    """A batch of photos through the deblurrer and both networks, rounded and scored by PSNR and SSIM."""
    deblur, translate = (networks.runner(steps.network(run, stage)) for stage in ("deblurrer", "translator"))
    photos = generated(run.config.evaluation.batch, *size())
    source = ArraySource("benchmark", blurry=photos[::-1], sharp=photos)
    methods = {
        "deblurrer": lambda batch: deblur(batch["blurry"]),
        "blur2blur": lambda batch: deblur(translate(batch["blurry"])),
    }
    metrics = protocols.make_measure(protocols.PROTOCOLS["standard"], {})

    def score() -> None:
        with tempfile.TemporaryDirectory() as folder:
            scoring.score("one batch", source, methods, metrics, make_setup(run, Path(folder)))

    seconds = measure.sample({"": score}, OPTIONS["repeats"].value)
    yield measure.row("deblurrer and blur2blur, scored", len(photos), seconds[""])


def programs(run: Run) -> Iterator[tuple[str, int, Callable, tuple]]:
    """Name, images, jitted function and arguments of every program that `train` and `deblur` run."""
    stage = OPTIONS["stage"].value
    yield f"train {stage}", run.config[stage].batch, *steps.step_and_arguments(run, stage)
    restore, variables = restorer(run)
    yield "translator + deblurrer", 1, restore, (variables, jnp.zeros((1, *size(), 3)))


def compilation(run: Run) -> Iterator[Row]:
    """Compile times and memory of every program."""
    for name, count, function, arguments in programs(run):
        yield measure.row(name, count, program=measure.compiled(function, *arguments))


def cost(run: Run) -> Iterator[Row]:
    """Operations of every program."""
    for name, count, function, arguments in programs(run):
        yield Row(name, count, **measure.cost(function, *arguments))


WORKS = {
    "train": train,
    "deblur": deblur,
    "data": data,
    "evaluate": evaluate,
    "profile": profile,
    "compile": compilation,
    "cost": cost,
}


def generated(count: int, height: int, width: int) -> np.ndarray:
    """Generated photos, uint8 (count, height, width, 3)."""
    side = max(height, width, 16)
    return scenes.generate(0, count, side, progress=False)[:, :height, :width]


def torch_calls(run: Run) -> Calls:
    """The translator's step in PyTorch, eager and compiled."""
    if OPTIONS["stage"].value != "translator":
        raise UserError("--against=torch knows the translator's step only; leave out --stage")
    from tools.bench import torch_reference

    return torch_reference.calls(run, steps.random_batch(run, "translator"))


if __name__ == "__main__":
    sys.exit(command())
