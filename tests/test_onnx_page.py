"""An exported network in a browser: the page in the docs deblurs a photo in Chromium as JAX does."""

import base64
import functools
import http.server
import io
import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import chromium
from PIL import Image
from skimage import data

import b2b_jax
from b2b_jax import export

ROOT = Path(__file__).parents[1]
# npm install --no-save onnxruntime-web
MODULES = Path(os.environ.get("NODE_PATH", ROOT / "node_modules"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page, the demo's adapted deblurrer and onnxruntime-web in one folder, and its address."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    runtime = MODULES / "onnxruntime-web/dist"
    if not runtime.is_dir():
        pytest.skip("onnxruntime-web is not installed: npm install --no-save onnxruntime-web")
    folder = tmp_path_factory.mktemp("site")
    shutil.copyfile(ROOT / "docs/onnx_page.html", folder / "index.html")
    (folder / "ort").symlink_to(runtime)
    assert export.main(["demo", str(folder / "sharp.onnx"), "--size", "256x256"]) == 0
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_a_photo_is_deblurred_in_the_browser_as_by_jax(site, tmp_path):
    photo = data.astronaut()[:256, :256]
    Image.fromarray(photo).save(tmp_path / "photo.png")
    with chromium.opened(1280, "light") as browser:
        browser.get(site)
        said = lambda: browser.find_element("id", "said").text  # noqa: E731
        chromium.wait_for(lambda: "256 × 256" in said())
        browser.find_element("id", "photo").send_keys(str(tmp_path / "photo.png"))
        chromium.wait_for(lambda: re.match(r"Done in \d", said()), 120)
        print(said())
        url = browser.execute_script("return document.getElementById('after').toDataURL()")
        browser.save_screenshot(str(tmp_path / "page.png"))
    sharp = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))
    wanted = b2b_jax.load("demo")(photo)
    difference = np.abs(sharp.astype(int) - wanted)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # but for rounding
    assert np.abs(wanted.astype(int) - photo).mean() > 1  # the network changed something
