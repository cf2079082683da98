"""Photos in batches of one size, read ahead."""

from helpers.scored import Mixed

from b2b_jax.evaluation import streams
from b2b_jax.evaluation.streams import Batch


def test_batches_are_of_one_size_and_within_their_limits():
    sizes = [(16, 16), (16, 16), (24, 16), (16, 16), (24, 16)]
    assert streams.plan(sizes, 2, 1.0) == [Batch([0, 1], 2), Batch([3], 2), Batch([2, 4], 2)]
    assert streams.plan(sizes, 8, 1.0) == [Batch([0, 1, 3], 3), Batch([2, 4], 2)]
    assert streams.plan(sizes, 8, 2 * 16 * 16 / 1e6) == [Batch([0, 1], 2), Batch([3], 2), Batch([2], 1), Batch([4], 1)]
    assert streams.plan([(4000, 6000)], 8, 8.0) == [Batch([0], 1)]  # a single photo may be as large as it likes
    assert streams.plan(sizes, 2, 1.0, devices=4) == [Batch([0, 1, 3], 4), Batch([2, 4], 4)]


def test_batches_are_read_in_order_and_filled_with_their_last_photo():
    batches = [Batch([0, 3], 2), Batch([1], 2), Batch([2], 1)]
    found = list(streams.read_ahead(Mixed(), batches, threads=3))
    assert [names for names, _ in found] == [["folder/0.jpg", "folder/3.jpg"], ["folder/1.jpg"], ["folder/2.jpg"]]
    levels = [(photos["blurry"][:, 0, 0, 0] * 255 / 40).round().tolist() for _, photos in found]
    assert levels == [[0, 3], [1, 1], [2]]
    assert [photos["sharp"].shape for _, photos in found] == [(2, 16, 16, 3), (2, 16, 16, 3), (1, 24, 16, 3)]


def test_the_reader_is_only_a_few_batches_ahead():
    source = Mixed()
    stream = streams.read_ahead(source, [Batch([i], 1) for i in range(6)], threads=1)
    next(stream)
    stream.close()
    assert source.reads <= 1 + streams.AHEAD


def test_a_reduced_source_knows_its_sizes():
    source = streams.Reduced(Mixed(), 8)
    assert source.size(2) == ("folder/2.jpg", 12, 8) and source[2]["sharp"].shape == (12, 8, 3)
    assert source[2]["name"] == "folder/2.jpg" and len(source) == 6
