"""The page's first tab: drop photos and clips, choose the networks and the method, compare, download."""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from b2b_jax import deblur, files, images, list_models, named, system
from b2b_jax.errors import UserError, disk_fault
from b2b_jax.images import ImageError
from b2b_jax.inference import jobs
from b2b_jax.inference.jobs import RESTORED, Job
from b2b_jax.system import Deblurrer

LARGEST_FILE = 200  # megabytes; a minute of video of a phone
KEEP = 24 * 3600  # seconds that a visitor's files and results are kept; a long clip can take a night
SHOWN = 1600  # pixels of the longer side in the comparison; the download has all
TITLES = {
    "adapted_consistent": "Adapted to the camera, in agreement with the photo",
    "adapted": "Adapted to the camera",
    "consistent": "In agreement with the photo",
    "kernel_field": "Kernel field, then deblurrer",
    "blur2blur": "Blur2Blur: translator, then deblurrer",
    "deblurrer": "Deblurrer alone",
}
INTRODUCTION = f"Photos and short clips, several at once, each of up to {LARGEST_FILE} MB. They stay on this computer."


def models(first: Path, more: Iterable[Path] = ()) -> list[str]:
    """What can be chosen: `first`, the demo, finished runs in runs/ and `more` ones, each once."""
    runs = [path for path, _ in list_models.runs(Path("runs"))]
    return list(dict.fromkeys(map(str, [first, *more, "demo", *runs])))


def available(model: Path) -> dict[str, str]:
    """The methods of a run whose networks are there, by their titles, the best first; {"": ""} for a single file.

    UserError: there is no network at all.
    """
    if not model.is_dir():
        if not model.is_file():
            raise UserError(f"No model at {model}: give a run's folder or a converted .safetensors as --model")
        return {"": ""}
    best = system.from_run(model)
    found = {}
    for method in system.METHODS:
        try:
            choice = system.from_run(model, method)
        except UserError:
            continue
        if all(path is None or path.is_file() for path in (choice.translator, choice.deblurrer)):
            found[method] = choice
    if not found:
        raise UserError(f"{model} has no finished deblurrer yet; train it first")
    order = sorted(found, key=lambda method: found[method] != best)
    return {TITLES[method]: method for method in order}


class Outcome(NamedTuple):
    """What became of one visit's files."""

    pairs: dict[str, tuple[str, str]]  # by file name: a picture of the photo before, and after
    written: list[str]
    said: str


class Worker:
    """The networks, loaded when they are first asked for, and the folder that results go to, for `KEEP` seconds."""

    def __init__(self, folder: Path):
        self._folder = folder
        # By model and method, each with the stamps of its files when it was read.
        self._deblurrers: dict[tuple[str, str], tuple[list, Deblurrer]] = {}
        self._ended: dict[Path, float] = {}  # by the folder of a visit's results: when that was

    def deblurrer(self, model: str, method: str) -> Deblurrer:
        """The system of a model and one of its methods, as its files are now; UserError when they cannot be read."""
        now = stamps(named.located(model), method)
        if self._deblurrers.get((model, method), ([],))[0] != now:
            self._deblurrers[model, method] = now, system.load(model, method)
        return self._deblurrers[model, method][1]

    def __call__(self, paths: Sequence[str], model: str, title: str, tick: Callable[[float, str], object]) -> Outcome:
        """Deblurs files; `tick` hears which share is done and the name in hand. Mistakes become sentences.

        `title` is one of `available`, which may be that of another model: then its best method is used.
        """
        if not paths or not model:
            return Outcome({}, [], f"Choose {'networks' if paths else 'a photo or a clip'} first.")
        self._tidy()
        try:
            output = Path(tempfile.mkdtemp(dir=self._folder))
            try:
                return self._visit(output, paths, model, title, tick)
            finally:
                self._ended[output] = time.time()
        except UserError as error:
            return Outcome({}, [], sentence(str(error)))
        except OSError as error:
            return Outcome({}, [], sentence(disk_fault(error)[0]))

    def _tidy(self) -> None:
        """Removes what visits that ended long ago left; Gradio removes only what it has shown, or got."""
        for folder in [folder for folder, ended in self._ended.items() if ended < time.time() - KEEP]:
            shutil.rmtree(folder, ignore_errors=True)
            del self._ended[folder]

    def _visit(
        self, output: Path, paths: Sequence[str], model: str, title: str, tick: Callable[[float, str], object]
    ) -> Outcome:
        """What `__call__` gives; the results go to `output`. UserError: the networks cannot be read."""
        todo, bad = listed(paths, output)
        tick(0, "Loading the networks")
        methods = available(named.located(model))
        restorer = self.deblurrer(model, methods.get(title, next(iter(methods.values())))).restorer
        done, notes = [], []
        for number, job in enumerate(todo):
            tick(number / len(todo), job.source.name)
            failed = deblur.run([job], restorer, say=notes.append)
            bad += failed
            done += [job] if not failed else []
        shown = {job.targets[RESTORED].relative_to(output).as_posix(): job for job in done if not job.is_video}
        pairs = {name: pair for name, job in shown.items() if (pair := _pair(job, bad))}
        lines = [f"{len(done)} of {len(set(paths))} done.", *(sentence(line, paths) for line in [*notes, *bad])]
        return Outcome(pairs, [str(job.targets[RESTORED]) for job in done], "\n".join(lines))


def stamps(model: Path, method: str) -> list:
    """The files a system is read from, with times and sizes; if these change, it is read again."""
    choice = system.choose(model, method)
    states = [path.stat() for path in (choice.translator, choice.deblurrer) if path and path.exists()]
    return [choice, *((state.st_mtime_ns, state.st_size) for state in states)]


def listed(paths: Sequence[str], output: Path) -> tuple[list[Job], list[str]]:
    """The jobs of one visit's files, each once, and a line for each that cannot be used.

    Results of equal names go to folders of their own: the first to `output`, the next to `output`/2, and so on.
    """
    rounds: dict[int, list[Path]] = {}
    seen: Counter[str] = Counter()
    for path in map(Path, dict.fromkeys(paths)):
        seen[path.name] += 1
        rounds.setdefault(seen[path.name], []).append(path)
    folders = {number: output / str(number) if number > 1 else output for number in rounds}
    found = [jobs.collect(chosen, folders[number], [RESTORED], overwrite=False) for number, chosen in rounds.items()]
    return [job for one in found for job in one.todo], [line for one in found for line in one.bad]


def sentence(line: str, paths: Sequence[str] = ()) -> str:
    """An error or a note as a sentence, with the names of files in place of their paths on this computer."""
    for path in paths:
        line = line.replace(str(path), Path(path).name)
    return line if line.endswith(".") else f"{line}."


def _pair(job: Job, bad: list[str]) -> tuple[str, str] | None:
    """The comparison of a job; None, and a line in `bad`, without room for it or the input: the photo is done."""
    try:
        return comparison(job)
    except (OSError, ImageError) as error:
        said = disk_fault(error)[0] if isinstance(error, OSError) else str(error)
        bad.append(f"{job.source}: cannot be compared here: {said}")
        return None


def comparison(job: Job) -> tuple[str, str]:
    """Pictures of a photo before and after, of one size, small enough for a browser."""
    made = []
    target = job.targets[RESTORED]
    folder = target.parent / "compared" / target.name  # of its own: the browser saves them under these names
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in (("before", job.source), ("after", target)):
        picture = Image.fromarray(np.asarray(images.read(source)))
        picture.thumbnail((SHOWN, SHOWN))
        made.append(folder / f"{target.stem} {name}.png")
        with files.draft(made[-1]) as part:
            images.save(part, picture, format="PNG")
    return str(made[0]), str(made[1])


def tab(gradio: Any, worker: Worker, first: Path) -> Any:
    """The tab's blocks; returns the menu of models, which grows when a camera has been trained."""
    gradio.Markdown(INTRODUCTION)
    dropped = gradio.File(label="Photos and clips", file_count="multiple", file_types=KINDS, elem_id="files")
    methods = list(available(named.located(first)))
    model = gradio.Dropdown(models(first), value=str(first), label="Networks", elem_id="model")
    warning = gradio.Markdown(**_warned(str(first)), elem_id="warning")
    chosen = gradio.Radio(methods, value=methods[0], label="Method", visible=len(methods) > 1, elem_id="method")
    start = gradio.Button("Deblur", variant="primary", elem_id="start")
    said = gradio.Textbox(label="What happened", interactive=False, elem_id="said")
    which = gradio.Dropdown(label="Compare", choices=[], visible=False, elem_id="which")
    slider = gradio.ImageSlider(label="Before and after", type="filepath", visible=False, elem_id="slider")
    written = gradio.File(label="Download", file_count="multiple", visible=False, elem_id="written")
    pairs = gradio.State({})

    def visit(paths: list[str] | None, model: str, title: str, progress: Any = gradio.Progress()) -> list:  # noqa: B008
        outcome = worker(paths or [], model, title, lambda share, name: progress(share, desc=name))
        names = list(outcome.pairs)
        return [
            outcome.pairs,
            outcome.said,
            gradio.Dropdown(choices=names, value=names[0] if names else None, visible=len(names) > 1),
            gradio.ImageSlider(value=outcome.pairs[names[0]] if names else None, visible=bool(names)),
            gradio.File(value=outcome.written, visible=bool(outcome.written)),
        ]

    start.click(visit, [dropped, model, chosen], [pairs, said, which, slider, written], api_visibility="private")
    which.input(lambda name, kept: kept[name], [which, pairs], slider, api_visibility="private")
    model.input(lambda model: _choose(gradio, model), model, [chosen, warning, said], api_visibility="private")
    return model


KINDS = sorted(images.EXTENSIONS | images.VIDEO_EXTENSIONS)


def _warned(model: str) -> dict[str, Any]:
    warning = named.warning(model)
    return {"value": f"**{warning}.**" if warning else "", "visible": bool(warning)}


def _choose(gradio: Any, model: str | None) -> list:
    """What becomes of methods, warning and text when other networks are chosen, or none."""
    if not model:
        return [gradio.Radio(choices=[], value=None, visible=False), gradio.Markdown(visible=False), ""]
    try:
        methods, said = list(available(named.located(model))), ""
    except UserError as error:
        methods, said = [], sentence(str(error))
    chosen = gradio.Radio(choices=methods, value=methods[0] if methods else None, visible=len(methods) > 1)
    return [chosen, gradio.Markdown(**_warned(model)), said]
