"""An exported network in a browser: the page in the docs deblurs a photo in Chromium as JAX does."""

import base64
import functools
import http.server
import io
import json
import os
import re
import shutil
import subprocess
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


# The page's script without a browser: canvases that keep what is drawn, and a network that changes nothing.
BROWSER = """
const elements = {}, drawn = {};
function element(id) {
  const context = {
    drawImage: (photo, x, y) => { drawn.photo = photo, drawn.at = [x, y]; },
    getImageData: (x, y, width, height) => ({ width, height, data: drawn.photo.data }),
    putImageData: (image) => { drawn.after = [image.width, image.height, [...image.data]]; },
  };
  return elements[id] ??= { getContext: () => context };
}
const document = { getElementById: element, querySelectorAll: () => [element("before"), element("after")] };
const location = "http://127.0.0.1/";
const createImageBitmap = async (file) => file;
class ImageData { constructor(data, width, height) { Object.assign(this, { data, width, height }); } }
class Tensor { constructor(type, data, shape) { Object.assign(this, { data, shape }); } }
const session = {
  inputMetadata: [{ shape: [1, 3, 5, 7] }],
  run: async ({ photo }) => { drawn.given = [...photo.data]; return { sharp: photo }; },
};
const ort = { env: { wasm: {} }, Tensor, InferenceSession: { create: async () => session } };
(() => { SCRIPT })();
setTimeout(() => {
  const input = element("photo");
  input.files = [];
  input.onchange();
  input.files = [PHOTO];
  input.onchange();
  const ends = () => ({ ...drawn, ended: !input.disabled, said: element("said").textContent });
  setTimeout(() => console.log(JSON.stringify(ends())));
});
"""


def in_node(width: int, height: int, data: list[int]) -> dict:
    """What the page draws, and gives to a network of 7 x 5 pixels, when this photo is chosen."""
    page = (ROOT / "docs/onnx_page.html").read_text()
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)[1].replace('"use strict";', "")
    photo = json.dumps({"width": width, "height": height, "data": data})
    text = BROWSER.replace("SCRIPT", script).replace("PHOTO", photo)
    return json.loads(subprocess.run(["node", "-e", text], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
@pytest.mark.parametrize("width, height", [(4, 3), (1, 1), (2, 9), (7, 5)])
def test_a_photo_smaller_than_the_export_keeps_its_size_and_has_no_black_beside_it(width, height):
    shown = np.random.default_rng(0).integers(0, 256, (min(height, 5), min(width, 7), 4))
    shown[..., 3] = 255
    found = in_node(width, height, shown.ravel().tolist())
    assert found["said"].startswith("Done") and found["ended"]
    assert found["at"] == [0, -2 if height == 9 else 0]  # the middle of what is larger
    assert found["after"] == [shown.shape[1], shown.shape[0], shown.ravel().tolist()]
    given = np.reshape(found["given"], (3, 5, 7)).transpose(1, 2, 0)
    beside = [(0, 5 - shown.shape[0]), (0, 7 - shown.shape[1]), (0, 0)]
    np.testing.assert_allclose(given, np.pad(shown[..., :3], beside, "reflect") / 255, atol=1e-6)


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
