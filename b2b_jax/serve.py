"""A page on this computer: deblur photos and short clips, compare, download; train on photos of a camera of your own.

    b2b-jax serve
    b2b-jax serve --model runs/mine
    b2b-jax serve --model weights/nafnet_gopro64.safetensors --port 7861

The page is at http://127.0.0.1:7860 and nowhere else: nothing is sent away, no address is shared, and no network is
needed. Without --model it uses the networks of the demo, which come with the package. Photos keep what `b2b-jax deblur`
keeps. It needs the package gradio: pip install 'b2b_jax[page]'. Exit codes: 0 and 143 stopped by Ctrl-C or SIGTERM; 2
gradio or the model is missing, or the port is taken (one line on stderr).
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from b2b_jax import commandline, files, named, terminal
from b2b_jax.errors import UserError
from b2b_jax.page import camera, photos
from b2b_jax.page.training import Training

LAST_PORT = 65535
MISSING = "The page needs the package gradio: pip install 'b2b_jax[page]'"
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = _parser().parse_args(argv)
    return commandline.outcome(lambda: _serve(options))


def _serve(options: argparse.Namespace) -> None:
    photos.available(named.located(options.model))
    os.environ |= QUIET
    try:
        import gradio
    except ImportError as error:
        raise UserError(MISSING) from error
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what follows is tidied up
    with tempfile.TemporaryDirectory(prefix="b2b_jax_page_") as folder, Training(Path(folder) / "log") as training:
        os.environ["GRADIO_TEMP_DIR"] = folder  # what visitors send; it goes with the page
        made = page(gradio, photos.Worker(Path(folder)), training, options.model)
        print(f"The page is at http://127.0.0.1:{options.port} as long as this runs; Ctrl-C ends it.", flush=True)
        try:
            made.launch(**launching(gradio, options.port), app_kwargs={"routes": camera.routes(training)})
        except OSError as error:
            raise UserError(f"port {options.port} is taken; choose another --port") from error


def launching(gradio: Any, port: int) -> dict[str, Any]:
    """How the page is served: here only, without a share link, with the fonts that a computer has."""
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    served = {"server_name": "127.0.0.1", "server_port": port, "share": False, "ssr_mode": False, "mcp_server": False}
    return served | {
        "theme": theme,
        "max_file_size": f"{photos.LARGEST_FILE}mb",
        "footer_links": [],
        "show_error": True,
        "quiet": True,
    }


def page(gradio: Any, worker: photos.Worker, training: Training, model: Path) -> Any:
    """The page, as Gradio's blocks."""
    with gradio.Blocks(title="b2b_jax", analytics_enabled=False, delete_cache=(photos.KEEP, photos.KEEP)) as blocks:
        with gradio.Tab("Deblur photos", elem_id="deblur"):
            menu = photos.tab(gradio, worker, model)
        with gradio.Tab("Train your camera", elem_id="train"):
            camera.tab(gradio, blocks, training, lambda: photos.models(model, training.finished), menu)
    return blocks


def port(text: str) -> int:
    """A port from its number; an error of argparse for any other text."""
    if not (text.isdecimal() and 1 <= int(text) <= LAST_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is no port; give a number from 1 to {LAST_PORT}")
    return int(text)


MODEL_HELP = "a run's folder, a converted .safetensors, or a name that b2b-jax models lists (default: demo)"


def _parser() -> terminal.Parser:
    parser = terminal.Parser("serve", __doc__)
    parser.add_argument("--model", type=files.given, default=Path("demo"), help=MODEL_HELP)
    parser.add_argument("--port", type=port, default=7860, help="of the page (default: 7860)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
