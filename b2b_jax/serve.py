"""A page on this computer to deblur photos and short clips: drop files, choose the method, compare, download.

    b2b-jax serve
    b2b-jax serve --model runs/mine
    b2b-jax serve --model weights/nafnet_gopro64.safetensors --port 7861

The page is at http://127.0.0.1:7860 and nowhere else: nothing is sent away, no address is shared, and no network is
needed. Without --model it uses the networks of the demo, which come with the package. Photos keep what `b2b-jax deblur`
keeps. It needs the package gradio: pip install 'b2b_jax[page]'. Exit codes: 0 stopped; 2 the model is missing or the
port is taken (one line on stderr).
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from b2b_jax import commandline, deblur, images, named, system
from b2b_jax.errors import UserError
from b2b_jax.inference import jobs
from b2b_jax.inference.jobs import RESTORED, Job
from b2b_jax.system import Deblurrer

LARGEST_FILE = 200  # megabytes; a minute of video of a phone
SHOWN = 1600  # pixels of the longer side in the comparison; the download has all
KEEP = 3600  # seconds that the page keeps a visitor's files
MISSING = "The page needs the package gradio: pip install 'b2b_jax[page]'"
TITLES = {
    "adapted": "Adapted to the camera",
    "blur2blur": "Blur2Blur: translator, then deblurrer",
    "deblurrer": "Deblurrer alone",
}
INTRODUCTION = f"""# Deblur photos
Photos and short clips, several at once, each of up to {LARGEST_FILE} MB. They stay on this computer."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = _parser().parse_args(argv)
    return commandline.outcome(lambda: _serve(options))


def _serve(options: argparse.Namespace) -> None:
    model = named.located(options.model)
    methods = available(model)
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    try:
        import gradio
    except ImportError as error:
        raise UserError(MISSING) from error
    with tempfile.TemporaryDirectory(prefix="b2b_jax_page_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # what visitors send; it goes with the page
        made = page(gradio, Worker(model, Path(folder)), methods, named.warning(options.model))
        try:
            made.launch(**launching(gradio, options.port))
        except OSError as error:
            raise UserError(f"port {options.port} is taken; choose another --port") from error


def launching(gradio: Any, port: int) -> dict[str, Any]:
    """How the page is served: here only, without a share link, with the fonts that a computer has."""
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    served = {"server_name": "127.0.0.1", "server_port": port, "share": False, "ssr_mode": False, "mcp_server": False}
    return served | {"theme": theme, "max_file_size": f"{LARGEST_FILE}mb", "footer_links": [], "show_error": True}


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
    """The networks of a model, loaded when a method is first asked for, and where results go."""

    def __init__(self, model: Path, folder: Path):
        self._model, self._folder = model, folder
        self._deblurrers: dict[str, Deblurrer] = {}

    def deblurrer(self, method: str) -> Deblurrer:
        """The system of this method; UserError when its networks cannot be read."""
        if method not in self._deblurrers:
            self._deblurrers[method] = system.load(self._model, method)
        return self._deblurrers[method]

    def __call__(self, paths: Sequence[str], method: str, tick: Callable[[float, str], object]) -> Outcome:
        """Deblurs files; `tick` hears which share is done and the name in hand. Mistakes become sentences."""
        if not paths:
            return Outcome({}, [], "Choose a photo or a clip first.")
        output = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            found = jobs.collect(list(map(Path, paths)), output, [RESTORED], overwrite=False)
            tick(0, "Loading the networks")
            restorer = self.deblurrer(method).restorer
        except UserError as error:
            return Outcome({}, [], sentence(str(error)))
        bad, done = [*found.bad], []
        for number, job in enumerate(found.todo):
            tick(number / len(found.todo), job.source.name)
            failed = deblur.run([job], restorer)
            bad += failed
            done += [job] if not failed else []
        pairs = {job.targets[RESTORED].name: comparison(job) for job in done if not job.is_video}
        lines = [f"{len(done)} of {len(paths)} done.", *(sentence(line, paths) for line in bad)]
        return Outcome(pairs, [str(job.targets[RESTORED]) for job in done], "\n".join(lines))


def sentence(line: str, paths: Sequence[str] = ()) -> str:
    """An error as a sentence, with the names of files in place of their paths on this computer."""
    for path in paths:
        line = line.replace(str(path), Path(path).name)
    return line if line.endswith(".") else f"{line}."


def comparison(job: Job) -> tuple[str, str]:
    """Pictures of a photo before and after, of one size, small enough for a browser."""
    made = []
    target = job.targets[RESTORED]
    for name, source in (("before", job.source), ("after", target)):
        picture = Image.fromarray(np.asarray(images.read(source)))
        picture.thumbnail((SHOWN, SHOWN))
        made.append(target.with_name(f".{target.name}.{name}.png"))
        picture.save(made[-1])
    return str(made[0]), str(made[1])


def page(gradio: Any, worker: Worker, methods: dict[str, str], warning: str = "") -> Any:
    """The page, as Gradio's blocks; `warning` is what to know of the networks before a photo is judged."""
    first = next(iter(methods))
    with gradio.Blocks(title="b2b_jax", analytics_enabled=False, delete_cache=(KEEP, KEEP)) as blocks:
        gradio.Markdown(INTRODUCTION)
        gradio.Markdown(f"**{warning}.**" if warning else "", visible=bool(warning), elem_id="warning")
        kinds = sorted(images.EXTENSIONS | images.VIDEO_EXTENSIONS)
        files = gradio.File(label="Photos and clips", file_count="multiple", file_types=kinds, elem_id="files")
        chosen = gradio.Radio(list(methods), value=first, label="Method", visible=len(methods) > 1, elem_id="method")
        start = gradio.Button("Deblur", variant="primary", elem_id="start")
        said = gradio.Textbox(label="What happened", interactive=False, elem_id="said")
        which = gradio.Dropdown(label="Compare", choices=[], visible=False, elem_id="which")
        slider = gradio.ImageSlider(label="Before and after", type="filepath", visible=False, elem_id="slider")
        written = gradio.File(label="Download", file_count="multiple", visible=False, elem_id="written")
        pairs = gradio.State({})

        def visit(paths: list[str] | None, title: str, progress: Any = gradio.Progress()) -> list:  # noqa: B008
            outcome = worker(paths or [], methods[title], lambda share, name: progress(share, desc=name))
            names = list(outcome.pairs)
            return [
                outcome.pairs,
                outcome.said,
                gradio.Dropdown(choices=names, value=names[0] if names else None, visible=len(names) > 1),
                gradio.ImageSlider(value=outcome.pairs[names[0]] if names else None, visible=bool(names)),
                gradio.File(value=outcome.written, visible=bool(outcome.written)),
            ]

        start.click(visit, [files, chosen], [pairs, said, which, slider, written], api_visibility="private")
        which.input(lambda name, kept: kept[name], [which, pairs], slider, api_visibility="private")
    return blocks


MODEL_HELP = "a run's folder, a converted .safetensors, or a name that b2b-jax models lists (default: demo)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("demo"), help=MODEL_HELP)
    parser.add_argument("--port", type=int, default=7860, help="of the page (default: 7860)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
