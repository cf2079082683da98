"""Tiles: cut on the networks' grid, blended to what the whole photo gives, within a stated memory."""

import itertools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import jit

from b2b_jax import levels, models, templates
from b2b_jax import networks as running
from b2b_jax.errors import UserError
from b2b_jax.evaluation import rows
from b2b_jax.inference import batching, tiles
from b2b_jax.inference import chain as inference_chain
from b2b_jax.inference.chain import Chain
from b2b_jax.inference.tiles import Restorer, cut
from b2b_jax.networks import Network


class Mosaic(nn.Module):
    """Means of 4 x 4 cells, of an image padded by zeros, then of 3 x 3 pixels: it sees 4 pixels and knows its grid."""

    see: Callable[[tuple], None] = lambda shape: None  # is told every shape that is traced, so one a compilation

    @property
    def stride(self) -> int:
        """Sides are padded to multiples of this."""
        return 4

    @nn.compact
    def __call__(self, x):
        self.see(x.shape)
        h, w = x.shape[1:3]
        padded = models.layers.pad_to_multiple(x, 4)
        cells = models.layers.cells(padded, 4).mean((2, 4))
        y = cells.repeat(4, axis=1).repeat(4, axis=2) * 0.5 + padded * 0.5
        return nn.avg_pool(y, (3, 3), padding="SAME")[:, :h, :w]


def mosaic(*see: Callable[[tuple], None]) -> Chain:
    """A chain of the one network."""
    return Chain([Network(Mosaic(*see), {})])


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", jit)
        yield


def noise(*shape: int, dtype=np.uint8) -> np.ndarray:
    """A photo (h, w, 3) of random levels."""
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (*shape, 3), dtype, endpoint=True)


def restore(chain: Chain, photo: np.ndarray, tile: int, overlap: int) -> np.ndarray:
    """The photo through tiles."""
    restorer = Restorer(chain, tile, overlap)
    return restorer.photo(photo, restorer.plan(*photo.shape[:2]))


def whole_photo(chain: Chain, photo: np.ndarray) -> np.ndarray:
    """The photo in one piece, straight through the chain."""
    return levels.to_levels(np.asarray(chain(levels.to_float(photo[None])))[0], photo.dtype)


# ------------------------------------------------------------------------------------------------------------- the cuts


@pytest.mark.parametrize(
    ("tile", "overlap", "stride"), [(64, 16, 4), (64, 0, 16), (512, 64, 16), (50, 20, 3), (33, 8, 4)]
)
def test_tiles_cover_every_pixel_on_the_grid_of_the_strides(tile, overlap, stride):
    for length in itertools.chain(range(1, 4 * tile, 7), [tile, tile + 1, 5000]):
        starts, side, weights = cut(length, tile, overlap, stride, overlap / 4)
        assert starts[0] == 0 and starts[-1] + side == length and side <= tile
        assert all(start % stride == 0 for start in starts) and (length - side) % stride == 0
        assert all(b - a <= side - overlap and b > a for a, b in itertools.pairwise(starts))
        total = np.zeros(length)
        for start, weight in zip(starts, weights, strict=True):
            total[start : start + side] += weight
        np.testing.assert_allclose(total, 1, atol=1e-6)
        assert weights.min() >= 0


def test_a_tile_has_no_say_near_its_seams():
    starts, _, weights = cut(832, 256, 64, 4, 16)
    assert starts == [0, 192, 384, 576]
    inner = weights[1]
    assert not inner[:16].any() and not inner[-16:].any() and (inner[48:-48] == 1).all()
    np.testing.assert_allclose(inner[16:48], np.sin(np.pi / 2 * (np.arange(32) + 0.5) / 32) ** 2, atol=1e-6)
    assert (weights[0, :208] == 1).all() and (weights[-1, 48:] == 1).all()


def test_a_margin_is_kept_whatever_the_overlap():
    starts, side, weights = cut(500, 200, 100, 4, 40)
    assert len(starts) == 4 and side == 200
    assert not weights[1, :40].any() and not weights[1, -40:].any() and weights[1, 60:-60].min() > 0
    assert (weights[0, :40] == 1).all()


@pytest.mark.parametrize(("tile", "overlap"), [(40, 40), (67, 64), (4, 0)])
def test_tiles_no_larger_than_their_overlap_are_refused(tile, overlap):
    with pytest.raises(UserError, match=f"tiles of {tile} pixels cannot overlap by {overlap}") as error:
        Restorer(mosaic(), tile, overlap)
    assert f"at least {overlap + 8} " in str(error.value)


# --------------------------------------------------------------------------------------------------- equal to the whole


@pytest.mark.parametrize("size", [(150, 97), (64, 200), (65, 64), (31, 129)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_sees_no_further_than_the_margin_is_the_same_in_tiles(size, dtype):
    """A quarter of the overlap is margin: 6 pixels, and the network sees 4; what remains is rounding."""
    photo = noise(*size, dtype=dtype)
    tiled, whole = restore(mosaic(), photo, 64, 24), whole_photo(mosaic(), photo)
    assert tiled.dtype == dtype and tiled.shape == whole.shape
    assert np.abs(tiled.astype(int) - whole).max() <= (1 if dtype == np.uint8 else 3)
    assert (tiled != whole).mean() < 0.02 and np.abs(whole.astype(int) - photo).mean() > np.iinfo(dtype).max / 20


def test_without_overlap_the_seams_show():
    """That the test before can fail."""
    photo = noise(150, 97)
    assert np.abs(restore(mosaic(), photo, 64, 0).astype(int) - whole_photo(mosaic(), photo)).max() > 20


def random_network(name: str, **hyper) -> Network:
    """A network of random weights; NAFNet's blocks get random shares, and means of nothing: the only global part."""
    module, rng = models.create(name, **hyper), np.random.default_rng(1)

    def draw(path, like):
        *_, layer, leaf = (part.key for part in path)
        if layer == "sca.1":
            return np.full(like.shape, leaf == "bias", np.float32)
        scale = 0.3 if leaf in ("beta", "gamma") else 1 / np.sqrt(3 * np.prod(like.shape[:-1]))
        return rng.normal(leaf == "scale", scale, like.shape).astype(np.float32)

    return Network(module, jax.tree_util.tree_map_with_path(draw, templates.template(module)))


@pytest.fixture(scope="module")
def networks():
    """A translator and a deblurrer."""
    nafnet = random_network("nafnet", width=4, encoders=(1, 1), middle=1, decoders=(1, 1))
    return [random_network("mimo_unet", base_channels=4, num_res=1), nafnet]


@pytest.fixture(scope="module")
def chain(networks):
    """Both, one after the other; both outputs kept."""
    return Chain(networks, keep=2)


def test_networks_differ_by_less_than_a_level_in_tiles(chain):
    photo = noise(101, 190, dtype=np.uint16)
    tiled, whole = restore(chain, photo, 128, 64), whole_photo(chain, photo)
    assert tiled.shape == (101, 190, 6)
    difference = np.abs(tiled.astype(float) - whole) / 65535
    assert difference.max() <= 1 / 255
    changes = np.abs(whole / 65535 - np.tile(photo, 2) / 65535).mean((0, 1))
    assert changes.min() > 0.02  # each network does something


def test_a_chain_is_its_networks_one_after_the_other(chain, networks):
    x = levels.to_float(noise(64, 64)[None])
    translate, deblur = map(running.runner, networks)
    wanted = jnp.concatenate([translate(x), deblur(translate(x))], axis=-1)
    np.testing.assert_allclose(chain(x), wanted, atol=1e-5)
    assert chain.stride == 4


def test_the_evaluation_cuts_large_photos():
    seen, photos = [], levels.to_float(np.stack([noise(40, 700), noise(40, 700)[::-1]]))
    networks = [Network(Mosaic(seen.append), {}), Network(Mosaic(), {})]
    whole, tiled = (rows.restoring(networks, megapixels)(photos) for megapixels in (0.028, 0.0279))
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    assert seen[0] == (2, 40, 700, 3) and all(shape[2] <= 512 for shape in seen[1:]) and len(seen) > 1


# ------------------------------------------------------------------------------------------- compilations, memory, time


def test_one_compilation_serves_all_tiles_and_all_photos_of_a_size():
    seen = []
    restorer = Restorer(mosaic(seen.append), 64, 16)
    for _ in range(2):
        photo = noise(200, 180)
        ticks = []
        plan = restorer.plan(*photo.shape[:2])
        restorer.photo(photo, plan, lambda ticks=ticks: ticks.append(1))
        assert len(ticks) == plan.tiles == 16
    assert len(seen) == 1 and seen[0][1:] == (64, 64, 3) and seen[0][0] <= 16


def test_old_programs_are_dropped(monkeypatch):
    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(inference_chain, "PROGRAMS", 2)
        chain = mosaic(seen.append)
    for side in (4, 8, 8, 12, 8, 4):
        chain(np.zeros((1, side, side, 3), np.float32))
    assert [shape[1] for shape in seen] == [4, 8, 12, 4]


def test_strides_that_no_usual_tile_holds_make_larger_ones(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 16)
    photo = noise(50, 90)
    restorer = Restorer(mosaic(), overlap=18, memory=0)
    plan = restorer.plan(50, 90)
    assert 16 < max(plan.shape[1:3]) <= 28 and plan.tiles > 1
    assert Restorer(mosaic(), overlap=18).photo(photo, plan).shape == photo.shape


def test_memory_decides_between_whole_and_tiles(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 96)
    whole_bytes = mosaic().working_memory((1, 180, 180, 3))
    assert whole_bytes >= 180 * 180 * 3 * 4
    plans = {m: Restorer(mosaic(), overlap=16, memory=m).plan(180, 180) for m in (0, whole_bytes // 2, 2 * whole_bytes)}
    assert [plan.tiles for plan in plans.values()] == [9, 9, 1]
    assert plans[2 * whole_bytes].shape[1:] == (180, 180, 3)
    assert Restorer(mosaic(), 64, 16, memory=1 << 40).plan(180, 180).tiles == 16  # asked for, so done
    assert Restorer(mosaic(), overlap=16, memory=0).plan(96, 80).tiles == 1


def test_working_memory_is_in_proportion_to_the_pixels(chain):
    small, large = (chain.working_memory((1, side, side, 3)) for side in (128, 512))
    assert small > 128 * 128 * 4 * 8 and large / small == pytest.approx(16, rel=0.05)


def test_the_budget_is_what_the_machine_can_give():
    assert 1 << 28 < tiles.memory_budget() <= (4 << 30 if jax.default_backend() == "cpu" else 1 << 40)


# --------------------------------------------------------------------------------------------------------------- videos


@pytest.mark.parametrize("tile", [0, 40])
def test_frames_are_restored_in_batches_as_photos_are_one_by_one(tile):
    seen, frames = [], [np.roll(noise(48, 36), i, axis=0) for i in range(20)]
    restorer = Restorer(mosaic(seen.append), tile, 16)
    restored = list(restorer.frames(iter(frames)))
    assert len(restored) == 20 and len(seen) == 1 and seen[0][0] == (2 if tile else 16)
    alone = Restorer(mosaic(), tile, 16)
    for got, frame in zip(restored, frames, strict=True):
        np.testing.assert_array_equal(got, alone.photo(frame, alone.plan(48, 36)))


def test_the_next_batch_is_handed_over_before_results_are_waited_for():
    happened = []

    class Result:
        """Stands for an array that is being computed."""

        def __init__(self, x):
            self._x = x

        def __array__(self, dtype=None, copy=None):
            happened.append(("fetched", int(self._x[0, 0])))
            return self._x

    def function(x):
        happened.append(("started", int(x[0, 0])))
        return Result(x)

    images = [np.full(1, i) for i in range(5)]
    assert [int(x[0]) for x in batching.stream(function, images, 2)] == [0, 1, 2, 3, 4]
    order = "started 0, started 2, fetched 0, started 4, fetched 2, fetched 4"
    assert ", ".join(f"{what} {i}" for what, i in happened) == order


def test_no_frames_give_no_frames():
    assert list(Restorer(mosaic()).frames([])) == []


def test_numbers_that_are_none_are_an_error():
    class Broken(Mosaic):
        """Divides by zero."""

        @nn.compact
        def __call__(self, x):
            return x / jnp.zeros_like(x)

    with pytest.raises(UserError, match="are not finite"):
        restore(Chain([Network(Broken(), {})]), noise(8, 8), 0, 16)
