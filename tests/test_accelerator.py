"""The steps as they are handed to a GPU: traced and lowered for CUDA here, never compiled or run."""

import re

import jax
import jax.numpy as jnp
import pytest
from helpers.networks import KEY

from b2b_jax import models
from b2b_jax.method import blur2blur, known_blur
from b2b_jax.method.blur2blur import Blur2Blur
from b2b_jax.stages.run import Run
from configs import demo, reds
from tools.bench import steps

BATCH, CROP = 2, 96
NAMES = ("unknown_blur", "known_sharp", "known_blurry", "unknown_sharp")


def lowered(penalty: float) -> str:
    """StableHLO of the paper's step in bfloat16, with extractor and VGG19; without turns, which transpose photos."""
    config = reds.get_config()
    config.translator.update(crop=CROP, augment=False)
    config.translator.gradient_penalty.weight = penalty
    config.translator.generator.num_res = 1
    small = {"nf": 16, "kernel_dim": 32, "front_blocks": 1, "back_blocks": 1, "kernel_blocks": 1, "reductions": 3}
    extractor = models.create("kernel_wizard", **small, dtype=jnp.bfloat16)
    vgg = models.create("vgg", dtype=jnp.bfloat16)
    parts = ("generator", "discriminator")
    networks = {part: models.create(**config.translator[part].to_dict(), dtype=jnp.bfloat16) for part in parts}
    adams = blur2blur.optimizers(config.translator.optimizer, config.translator.steps)
    method = Blur2Blur(networks, adams, blur2blur.make_content("vgg19", vgg), config.translator)
    image = jnp.zeros((1, CROP, CROP, 3))
    frozen = {"vgg": vgg, "blur_extractor": extractor}
    frozen = {name: jax.eval_shape(network.init, KEY, image) for name, network in frozen.items()}
    batch = dict.fromkeys(NAMES, jax.ShapeDtypeStruct((BATCH, CROP, CROP, 3), jnp.uint8))
    state = jax.eval_shape(lambda key: blur2blur.init(method, key), KEY)
    step = jax.jit(blur2blur.make_step(method, known_blur.make(extractor)))
    return step.trace(state, frozen, batch, KEY).lower(lowering_platforms=("cuda",)).as_text()


@pytest.fixture(scope="module")
def plain() -> list[str]:
    return lowered(penalty=0.0).splitlines()


def test_without_the_penalty_no_convolution_or_product_is_in_float32(plain):
    products = [line for line in plain if re.search(r"stablehlo\.(convolution|dot_general)", line)]
    types = [re.search(r": \((tensor<[^>]*>), (tensor<[^>]*>)\)", line).groups() for line in products]
    assert len(products) > 100 and all("xbf16>" in x and "xbf16>" in y for x, y in types)


def test_the_penalty_alone_is_in_float32(plain):
    lines = lowered(penalty=0.005).splitlines()
    precise = [line for line in lines if "stablehlo.convolution" in line and "xf32>" in line]
    # Five layers: forwards, back to the image, and both of these backwards again.
    assert 20 <= len(precise) <= 40 and all("precision HIGH" in line for line in precise)


def asks_the_host(lines: list[str]) -> list[str]:
    return [line for line in lines if "callback" in line or "infeed" in line or "outfeed" in line]


def test_the_step_never_asks_the_host(plain):
    assert not asks_the_host(plain)


def test_activations_stay_in_their_layout(plain):
    shapes = [re.search(r"stablehlo\.transpose .*: \(tensor<([\dx]+)x\w+>\)", line) for line in plain]
    images = [s for s in (list(map(int, found[1].split("x"))) for found in shapes if found) if len(s) == 4]
    assert not [shape for shape in images if shape[0] in (BATCH, 2 * BATCH) and min(shape[1:3]) >= 16]


@pytest.mark.parametrize("stage", ["deblurrer", "camera", "adaptation"])
def test_the_other_steps_never_ask_the_host_and_their_layers_are_in_bfloat16(stage, tmp_path):
    config = demo.get_config("quick")
    config.compute_dtype = "bfloat16"
    step, arguments = steps.step_and_arguments(Run(config, tmp_path), stage)
    lines = step.trace(*arguments).lower(lowering_platforms=("cuda",)).as_text().splitlines()
    assert not asks_the_host(lines)
    # What the camera learns are products, Fourier transforms and correlations, in float32: it has no such layers.
    layers = [line for line in lines if "stablehlo.convolution" in line]
    assert all("xbf16>" in line and "xf32>" not in line for line in layers) and bool(layers) == (stage != "camera")
