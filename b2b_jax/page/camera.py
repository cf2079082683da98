"""The second tab of the page: two piles of photos of one camera, a look at them, training with a live report, stop."""

from collections.abc import Callable
from typing import Any

from b2b_jax import images
from b2b_jax.errors import UserError, disk_fault
from b2b_jax.images import ImageError
from b2b_jax.page import training
from b2b_jax.page.photos import sentence
from b2b_jax.page.training import PILES, Training

INTRODUCTION = """Two piles of photos and videos of **one camera**: blurry ones, and sharp ones of other scenes, a
hundred or more of each. The networks are small (`configs/camera.py:small`) and are trained on this computer, the
deblurrer on generated scenes; a run of the demo, which is shorter, takes 6 minutes on 2 cores. A run that was stopped
resumes from its work folder."""
SETTINGS = "One KEY=VALUE a line, of those in configs/default.py, such as camera.steps=2000"
REPORT = "/report"
WAITING = "<!doctype html><meta http-equiv=refresh content=2><title>report</title><p>The report appears here soon.</p>"
STYLE = "width:100%;height:80vh;border:0"
FRAME = f'<iframe src="{REPORT}?start={{}}&running={{}}" title="Live report" style="{STYLE}"></iframe>'


def routes(running: Training) -> list:
    """The live report as a page of its own, which the tab shows in a frame."""
    from starlette.responses import FileResponse, HTMLResponse  # which come with Gradio
    from starlette.routing import Route

    def report(request: Any) -> Any:
        path = running.report()
        headers = {"Cache-Control": "no-store"}
        return FileResponse(path, headers=headers) if path else HTMLResponse(WAITING, headers=headers)

    return [Route(REPORT, report)]


def tab(gradio: Any, blocks: Any, running: Training, models: Callable[[], list[str]], menu: Any) -> None:
    """The tab's blocks; `menu`, of the other tab, then offers what `models` gives."""
    gradio.Markdown(INTRODUCTION)
    fields = _fields(gradio)
    with gradio.Row():
        look = gradio.Button("Look at the photos", elem_id="look")
        start = gradio.Button("Train", variant="primary", elem_id="begin")
        stop = gradio.Button("Stop and save", variant="stop", elem_id="stop")
    found = gradio.Textbox(label="The photos", interactive=False, lines=3, max_lines=20, elem_id="found")
    said = gradio.Textbox(label="Training", interactive=False, elem_id="state")
    frame = gradio.HTML(elem_id="report")
    state = [gradio.State(), said, start, stop, menu, frame]

    def now(seen: object = None) -> list:
        """The tab as it should be; untouched while nothing changes, or an open menu would close every second."""
        fresh = [running.said(), running.running]
        if fresh == seen:
            return [gradio.skip()] * len(state)
        buttons = [gradio.Button(interactive=on) for on in (not running.running, running.running)]
        return [fresh, fresh[0], *buttons, gradio.Dropdown(choices=models()), _frame(running)]

    def begin(*values: Any) -> list:
        wrong = _attempt(lambda: running.start(_order(values)))
        return [gradio.skip(), wrong, *[gradio.skip()] * 4] if wrong else now()

    def end() -> list:
        running.stop()
        return now()

    hidden = {"api_visibility": "private", "show_progress": "hidden"}
    look.click(_look, fields, found, api_visibility="private")
    start.click(begin, fields, state, **hidden)
    stop.click(end, None, state, **hidden)
    gradio.Timer(1.0).tick(now, state[0], state, **hidden)
    blocks.load(now, None, state, **hidden)


def _fields(gradio: Any) -> list:
    """What is to be trained: two folders, two uploads, the work folder, settings."""
    kinds, folders, uploads = sorted(images.EXTENSIONS | images.VIDEO_EXTENSIONS), [], []
    with gradio.Row():
        for key, name in PILES.items():
            with gradio.Column(min_width=280):
                label = f"Folder of {name} photos on this computer"
                folders.append(gradio.Textbox(label=label, elem_id=key))
                label = f"or {name} photos to upload"
                options = {"file_count": "multiple", "file_types": kinds, "height": 140}
                uploads.append(gradio.File(label=label, elem_id=f"{key}_files", **options))
    workdir = gradio.Textbox("runs/mine", label="Work folder", elem_id="workdir")
    with gradio.Accordion("More settings", open=False, elem_id="more"):
        settings = gradio.Textbox(label=SETTINGS, lines=3, elem_id="settings")
    return [*folders, *uploads, workdir, settings]


def _order(values: tuple) -> training.Order:
    *piles, workdir, settings = values  # an empty field is None
    texts = [text or "" for text in (*piles[:2], workdir, settings)]
    return training.order(texts[:2], [files or [] for files in piles[2:]], *texts[2:])


def _look(*values: Any) -> str:
    said = []
    return _attempt(lambda: said.append(training.look(_order(values)))) or said[0]


def _attempt(call: Callable[[], object]) -> str:
    """Does it; returns what went wrong as a sentence, "" for nothing."""
    try:
        call()
    except (UserError, ImageError) as error:
        return sentence(str(error))
    except OSError as error:
        return sentence(disk_fault(error)[0])
    return ""


def _frame(running: Training) -> str:
    """The report in its frame, which is loaded anew when the run starts and ends; "" before the first start."""
    return FRAME.format(running.starts, running.running) if running.starts else ""
