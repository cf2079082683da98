"""Generated photographs: "dead leaves", opaque random shapes that occlude one another.

Shapes whose radius has the density r^-2 give images with the statistics of nature: edges and flat parts at every
scale, a power spectrum that falls like f^-2 (Lee, Mumford & Huang, "Occlusion models for natural images", IJCV 2001).
Restoration networks trained on them carry over to photographs (Achddou, Gousseau & Ladjal, "Synthetic images as a
regularity prior for image restoration neural networks", SSVM 2021).

Arrays are uint8 RGB, (size, size, 3) or (count, size, size, 3). A scene is a function of (seed, index, size) alone, on
every machine with the same release of Pillow, which draws the shapes and letters. It is drawn at twice the size, where
every length below is meant for a canvas of 320 px and scales with it, then area-averaged. Positions in the plane are
complex numbers, x + iy, y downward.
"""

import functools
import itertools
import string
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps

VERSION = 1  # raise it when a change alters the pixels: cached files of other versions are made anew

CANVAS = 320  # px, the canvas for which the lengths are given
OUTLINE = 32  # vertices of a leaf: a multiple of 8, so that a rectangle's corners are among them
SINE = np.rint(127.5 + 127.5 * np.sin(np.arange(256) * (2 * np.pi / 256))).astype(np.uint8)


def scene(seed: int, index: int, size: int = 160) -> np.ndarray:
    """Draws one scene: ground, leaves from back to front, thin lines (p = .5), text (p = .4).

    Args:
        seed: non-negative; names a family of scenes, disjoint from the families of other seeds.
        index: non-negative; the scene within the family.
        size: width and height in pixels, at least 16.

    Returns:
        uint8 (size, size, 3).

    Raises:
        ValueError: if `size` is below 16 or `seed` or `index` is negative.
    """
    check(seed, index, size)
    rng = np.random.default_rng([seed, index])
    gamma = np.exp(rng.normal(0, 0.45))  # the exposure: some scenes are dark, some are bright
    canvas = _ground(rng, 2 * size, gamma)
    textures = _textures(rng, 2 * size)
    pen = ImageDraw.Draw(canvas)
    large = _leaves(rng, 12 if rng.random() < 0.5 else 0, (40, 110), gamma, 2 * size)
    for leaf in itertools.chain(large, _leaves(rng, rng.integers(120, 421), (3, 110), gamma, 2 * size)):
        pen.polygon(leaf.outline, fill=tuple(leaf.ink))
        if leaf.filling >= 0.45:
            _adorn(canvas, leaf, textures)
    if rng.random() < 0.5:
        _draw_lines(canvas, rng, gamma)
    if rng.random() < 0.4:
        _draw_text(canvas, rng, gamma)
    return np.asarray(canvas.reduce(2))


def check(seed: int, index: int, size: int) -> None:
    """ValueError unless the seed and the index are not negative and the size is at least 16."""
    if size < 16 or seed < 0 or index < 0:
        raise ValueError(f"A scene of seed {seed}, index {index}, size {size}: wants seed, index >= 0 and size >= 16.")


def _colours(rng: np.random.Generator, count: int, gamma: float) -> np.ndarray:
    """Random luminance plus chroma that is mostly weak, and more orange-blue than green-purple: uint8 (count, 3).

    The order of the axes is that of photographs (Ruderman, Cronin & Chiao, JOSA A 1998).
    """
    luminance = 8 + 240 * rng.random((count, 1)) ** gamma
    chroma = rng.normal(size=(count, 2)) * rng.exponential(1, (count, 1)) @ [[22, 0, -22], [-5, 10, -5]]
    return np.clip(luminance + chroma, 0, 255).astype(np.uint8)


def _radii(rng: np.random.Generator, count: int, low: float, high: float) -> np.ndarray:
    """Radii of density r^-2 on [low, high]: 1/r is uniform (Lee et al., section 3: the scale-invariant law)."""
    return 1 / rng.uniform(1 / high, 1 / low, count)


def _outlines(rng: np.random.Generator, count: int) -> np.ndarray:
    """Closed curves within the unit disc, a fourth each ellipse, rectangle, polygon, blob: complex (count, OUTLINE)."""
    step = np.arange(OUTLINE)
    circle = np.exp(2j * np.pi * step / OUTLINE)
    square = circle / np.maximum(abs(circle.real), abs(circle.imag)) / np.sqrt(2)
    corners = rng.integers(3, 8, (count, 1))  # a polygon has repeated vertices, to fit the array
    corner = step * corners // OUTLINE
    polygon = np.exp(2j * np.pi * (corner + np.take_along_axis(rng.random((count, 8)), corner, 1) * 0.7) / corners)
    harmonic = np.arange(2, 6)  # a blob is a circle with its radius modulated by four harmonics
    waves = rng.normal(size=(count, 4, 2)) @ [1, 1j] * (0.35 / harmonic)
    blob = circle * np.clip(0.72 + (waves @ circle[harmonic[:, None] * step % OUTLINE]).real, 0.2, 1)
    kind = rng.integers(0, 4, (count, 1))
    outline = np.choose(kind, [circle, square, polygon, blob])
    aspect = rng.uniform(0.25, 1, (count, 1))
    return (outline.real + 1j * aspect * outline.imag) * np.exp(2j * np.pi * rng.random((count, 1)))


def _phase(rng: np.random.Generator, side: int, period: float, angle: float) -> np.ndarray:
    """The phase of a plane wave, 256 to a turn: uint8 (side, side). Integers, so that every machine agrees."""
    along_x, along_y = (round(65536 / period * way) for way in (np.cos(angle), np.sin(angle)))
    position = np.arange(side, dtype=np.int32)
    phase = position * along_x + position[:, None] * along_y + rng.integers(65536, dtype=np.int32)
    return (phase >> 8).astype(np.uint8)


def _grating(rng: np.random.Generator, side: int) -> Image.Image:
    """Parallel stripes, soft or hard: side x side, 8 bits."""
    phase = _phase(rng, side, rng.uniform(5, 32) * side / CANVAS, rng.uniform(0, np.pi))
    return Image.fromarray(SINE[phase] if rng.random() < 0.6 else (phase > 127) * np.uint8(255))


def _checks(rng: np.random.Generator, side: int) -> Image.Image:
    """A turned chess-board: side x side, 8 bits."""
    period, angle = rng.uniform(8, 44) * side / CANVAS, rng.uniform(0, np.pi / 2)
    across, along = (_phase(rng, side, period, angle + turn) > 127 for turn in (0, np.pi / 2))
    return Image.fromarray((across ^ along) * np.uint8(255))


def _fine_noise(rng: np.random.Generator, side: int) -> Image.Image:
    """Independent pixels, like sand: side x side, 8 bits."""
    return Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8))


def _clouds(rng: np.random.Generator, side: int) -> Image.Image:
    """Noise of five octaves, the finest 2 px wide, each blended into the coarser ones: side x side, 8 bits."""
    weight, tile = rng.uniform(0.3, 0.5), _fine_noise(rng, max(2, side >> 6))
    for octave in range(5, 0, -1):
        finer = _fine_noise(rng, max(2, side >> octave))
        tile = Image.blend(tile.resize(finer.size, Image.Resampling.BILINEAR), finer, weight)
    return ImageOps.autocontrast(tile, cutoff=1).resize((side, side), Image.Resampling.BILINEAR)


def _textures(rng: np.random.Generator, side: int) -> list[Image.Image]:
    """The textures of one scene, made once and cut by many leaves."""
    makers = (_clouds, _clouds, _grating, _checks, _fine_noise)
    return [maker(rng, side) for maker in makers]


@functools.cache
def _ramp(turn: int) -> Image.Image:
    """A linear gradient 0..255 in one of 16 directions: 32 x 32, to be stretched over a leaf."""
    x, y = np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32))
    ramp = x * np.cos(turn * np.pi / 8) + y * np.sin(turn * np.pi / 8)
    return Image.fromarray(np.rint(127.5 + 127.5 * ramp / ramp.max()).astype(np.uint8))


def _ground(rng: np.random.Generator, side: int, gamma: float) -> Image.Image:
    """The background: a gradient between two colours."""
    here, there = (tuple(colour) for colour in _colours(rng, 2, gamma).tolist())
    canvas = Image.new("RGB", (side, side), here)
    canvas.paste(there, mask=_ramp(int(rng.integers(16))).resize((side, side), Image.Resampling.BILINEAR))
    return canvas


class Leaf(NamedTuple):
    """One leaf, in plain numbers as Pillow wants them."""

    outline: list[float]  # [x0, y0, x1, y1, ...] on the canvas
    stencil: list[float]  # the same, relative to the corner
    corner: list[float]  # x, y of the upper left corner of its bounding box: whole numbers
    box: list[int]  # width, height
    ink: list[int]
    second: list[int]  # the colour into which a gradient or a texture blends
    filling: float  # below .45 flat, below .70 with a gradient, below 1 textured
    choice: int  # of the direction or the texture
    place: list[float]  # in [0, 1): from where in the texture it is cut


def _leaves(
    rng: np.random.Generator, count: int, radius: tuple[float, float], gamma: float, side: int
) -> Iterator[Leaf]:
    """Draws the properties of `count` leaves, all at once for speed."""
    centres, sizes = rng.uniform(0, side, (count, 2)) @ [1, 1j], _radii(rng, count, *radius) * (side / CANVAS)
    outlines = centres[:, None] + sizes[:, None] * _outlines(rng, count)
    corners = np.floor(outlines.real.min(1)) + 1j * np.floor(outlines.imag.min(1))
    stencils = outlines - corners[:, None]
    boxes = np.stack([stencils.real.max(1), stencils.imag.max(1)], 1).astype(int) + 2
    inks, contrasts = _colours(rng, count, gamma), rng.uniform(0.15, 0.8, (count, 1))
    seconds = inks + (contrasts * (_colours(rng, count, gamma).astype(float) - inks)).astype(int)
    fillings, choices, places = rng.random(count), rng.integers(1 << 16, size=count), rng.random((count, 2))
    columns = _flat(outlines), _flat(stencils), _flat(corners[:, None]), boxes, inks, seconds, fillings, choices, places
    return map(Leaf, *(column if isinstance(column, list) else column.tolist() for column in columns))


def _flat(points: np.ndarray) -> list[list[float]]:
    """Complex (count, n) to `count` lists of [x0, y0, x1, y1, ...]."""
    return points.view(np.float64).tolist()


def _adorn(canvas: Image.Image, leaf: Leaf, textures: list[Image.Image]) -> None:
    """Blends the second colour into a leaf, by a gradient or by a texture."""
    if leaf.filling < 0.70:
        pattern = _ramp(leaf.choice % 16).resize(leaf.box, Image.Resampling.BILINEAR)
    else:
        pattern = _cut(textures[leaf.choice % len(textures)], leaf.box, leaf.place)
    mask = Image.new("L", leaf.box)  # no larger than the leaf: most are small
    ImageDraw.Draw(mask).polygon(leaf.stencil, fill=255)
    canvas.paste(tuple(leaf.second), tuple(map(int, leaf.corner)), ImageChops.multiply(mask, pattern))


def _cut(texture: Image.Image, size: Sequence[int], place: Sequence[float]) -> Image.Image:
    """A piece of a texture, from anywhere within it: `place` is in [0, 1)."""
    left, top = (int(where * (whole - part)) for where, whole, part in zip(place, texture.size, size, strict=True))
    return texture.crop((left, top, left + size[0], top + size[1]))


def _draw_lines(canvas: Image.Image, rng: np.random.Generator, gamma: float) -> None:
    """One to eight thin strokes of two to four points: wires, stalks, cracks."""
    pen, scale = ImageDraw.Draw(canvas), canvas.width / CANVAS
    for colour in _colours(rng, rng.integers(1, 9), gamma):
        start, way = rng.uniform(0, canvas.width, (2, 2)) @ [1, 1j]
        bends = rng.normal(0, 20 * scale, (rng.integers(2, 5), 2)) @ [1, 1j]
        stroke = start + (way - start) * np.linspace(0, 1, len(bends)) + bends
        pen.line(
            _flat(stroke[None])[0],
            tuple(colour.tolist()),
            width=max(1, round(rng.uniform(1, 5) * scale)),
            joint="curve",
        )


@functools.cache
def _font(points: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size=points)  # the one that comes with Pillow: the same on every machine


def _draw_text(canvas: Image.Image, rng: np.random.Generator, gamma: float) -> None:
    """One to three words of random characters, upright or turned."""
    letters = list(string.ascii_letters + string.digits + ".,:;!?&%+-")
    for colour in _colours(rng, rng.integers(1, 4), gamma):
        word = "".join(rng.choice(letters, rng.integers(2, 12)))
        font = _font(max(6, round(rng.uniform(14, 56) * canvas.width / CANVAS)))
        left, top, right, bottom = font.getbbox(word)
        mask = Image.new("L", (right - left + 2, bottom - top + 2))
        ImageDraw.Draw(mask).text((1 - left, 1 - top), word, 255, font)
        if rng.random() < 0.5:
            mask = mask.rotate(rng.uniform(-90, 90), Image.Resampling.BILINEAR, expand=True)
        middle = rng.uniform(0.1, 0.9, 2) * canvas.width
        corner = (int(middle[0] - mask.width / 2), int(middle[1] - mask.height / 2))
        canvas.paste(tuple(colour.tolist()), corner, mask)
