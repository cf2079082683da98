"""Datasets, the split by scene, and the input pipeline. Grey levels of the made-up photos tell which photo it is."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from helpers.labelled import labelled
from helpers.trees import SCENES, write_tree
from scipy import signal

from b2b_jax import images
from b2b_jax.data import blur, domains, pipeline, split
from b2b_jax.data.photo import Photo
from b2b_jax.data.sources import ArraySource, Pairs, Photos, check_sizes
from b2b_jax.errors import UserError
from b2b_jax.method import known_blur
from configs import camera, demo, reds


def write(path, level, size=(4, 4)):
    images.write(path, np.full((*size, 3), level, np.uint8))
    return path


# ---------------------------------------------------------------------------------------------------------------- split


def scenes_of(counts):
    return [f"scene{index:02d}" for index, count in enumerate(counts) for _ in range(count)]


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.6, 0.95])
@pytest.mark.parametrize("counts", [(3, 3), (1, 40, 2, 7), tuple(range(1, 23)), (100,) * 5])
def test_the_share_comes_near_and_both_sides_have_a_scene(counts, ratio):
    scenes = scenes_of(counts)
    for seed in range(5):
        chosen = split.by_scene(scenes, ratio, seed)
        share = sum(scene in chosen for scene in scenes)
        assert 0 < len(chosen) < len(counts) and chosen < set(scenes)
        assert abs(share - ratio * len(scenes)) <= max(counts)


def test_the_split_is_a_function_of_the_seed_and_not_of_the_order():
    scenes = scenes_of(range(1, 20))
    choices = [split.by_scene(scenes, 0.6, seed) for seed in range(5)]
    assert choices == [split.by_scene(scenes[::-1], 0.6, seed) for seed in range(5)]
    assert len(set(map(frozenset, choices))) > 1


def test_no_scene_is_on_both_sides_and_none_is_lost():
    rng = np.random.default_rng(0)
    for seed in range(50):
        scenes = scenes_of(rng.integers(1, 30, rng.integers(2, 40)))
        chosen = split.by_scene(scenes, rng.uniform(0.05, 0.95), seed)
        sides = [{scene for scene in scenes if (scene in chosen) is side} for side in (True, False)]
        assert sides[0] and sides[1] and not sides[0] & sides[1] and sides[0] | sides[1] == set(scenes)


@pytest.mark.parametrize("counts", [(3, 5, 9), (1, 1, 1, 7), (10, 20, 30, 41), (2, 3, 5, 7, 11, 13)])
def test_no_choice_of_scenes_comes_nearer(counts):
    scenes = scenes_of(counts)
    for ratio in (0.2, 0.45, 0.6):
        wanted = ratio * len(scenes)
        every = [c for size in range(1, len(counts)) for c in itertools.combinations(counts, size)]
        chosen = split.by_scene(scenes, ratio, 0)
        share = sum(scene in chosen for scene in scenes)
        assert abs(share - wanted) == min(abs(sum(c) - wanted) for c in every)


def test_published_counts():
    """REDS, 240 scenes of 100 photos: the paper's numbers exactly; 22 scenes of about GoPro's sizes: within a photo."""
    sizes = np.random.default_rng(0).multinomial(2_103, np.random.default_rng(1).dirichlet([8.0] * 22))
    for counts, wanted, tolerance in (([100] * 240, 14_400, 0), (sizes, 1_261, 1)):
        chosen = split.by_scene(scenes_of(counts), 0.6, 0)
        assert abs(sum(scene in chosen for scene in scenes_of(counts)) - wanted) <= tolerance


def test_one_scene_cannot_be_split():
    with pytest.raises(ValueError, match="at least two scenes, got 1"):
        split.by_scene(["only"] * 9, 0.6, 0)


# -------------------------------------------------------------------------------------------------------------- sources


def test_pairs_of_two_sizes_are_refused(tmp_path):
    pair = Photo(write(tmp_path / "b.png", 1, (4, 6)), write(tmp_path / "s.png", 2, (4, 5)), "scene")
    with pytest.raises(UserError, match=r"b\.png and its sharp twin .*s\.png differ in size: 6x4 and 5x4 pixels"):
        Pairs([pair])[0]


def test_sizes_are_name_height_width_from_the_header(tmp_path):
    path = write(tmp_path / "a.png", 1, (4, 6))
    assert Photos([path]).size(0) == Pairs([Photo(path, path, "")]).size(0) == (str(path), 4, 6)
    assert ArraySource("x", image=np.zeros((3, 8, 9, 3), np.uint8)).size(2) == ("x/00002", 8, 9)


def test_check_sizes_refuses_a_pile_without_photos():
    for key, wanted in (("translator.crop", r" for --config\.translator\.crop"), ("", "")):
        with pytest.raises(UserError, match=f"No photos are left{wanted}; check the folders"):
            check_sizes(Photos([]), 8, key)


def test_check_sizes_names_a_photo_smaller_than_the_crop(tmp_path):
    source = Photos([write(tmp_path / f"{h}x{w}.png", 1, (h, w)) for h, w in ((9, 9), (7, 20), (20, 6))])
    check_sizes(source, 6, "translator.crop")
    with pytest.raises(UserError) as caught:
        check_sizes(source, 8, "translator.crop")
    for words in ("7x20.png is 20x7 pixels", "smaller than the 8", "(2 bad among 3", "--config.translator.crop"):
        assert words in str(caught.value)


# ------------------------------------------------------------------------------------------------------------- pipeline


def label(image):
    """Number of the photo, row and column of a crop."""
    return tuple(image[0, 0].tolist())


def stream(count, seed, crop=4):
    made = pipeline.stream(labelled(count), pipeline.Crop(crop), seed)
    return made.photos.map(lambda element: element["image"][0])


def test_an_element_is_a_function_of_seed_and_index():
    one, other = stream(5, seed=3), stream(5, seed=3)
    backwards = [label(other[index]) for index in reversed(range(12))]
    assert [label(one[index]) for index in range(12)] == backwards[::-1]
    assert [label(stream(5, seed=4)[index]) for index in range(12)] != backwards[::-1]


def test_every_epoch_is_a_permutation_in_an_order_and_with_crops_of_its_own():
    elements = [label(stream(7, seed=0)[index]) for index in range(42)]
    epochs = [elements[start : start + 7] for start in range(0, 42, 7)]
    assert all(sorted(number for number, _, _ in epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(number for number, _, _ in epoch) for epoch in epochs}) > 1
    assert len({epoch[[n for n, _, _ in epoch].index(0)][1:] for epoch in epochs}) > 1


def test_crops_reach_every_place_and_lie_within_the_photo():
    crops = [stream(1, seed=0, crop=10)[index] for index in range(80)]
    assert {crop.shape for crop in crops} == {(10, 10, 3)}
    assert {label(crop)[1:] for crop in crops} == set(itertools.product(range(3), range(3)))


def test_the_images_of_a_pair_are_cut_alike():
    photos = labelled(3).arrays["image"]
    source = ArraySource("pair", blurry=photos, sharp=photos + np.uint8(100))
    elements = pipeline.stream(source, pipeline.Crop(5), 0)
    for index in range(6):
        element = elements[index]
        assert element.keys() == {"blurry", "sharp", "name"}
        np.testing.assert_array_equal(element["sharp"], element["blurry"] + np.uint8(100))


def test_a_photo_that_turns_out_too_small_is_named():
    with pytest.raises(UserError, match="labelled/00000 is 12x12 pixels, smaller than the 13"):
        stream(1, seed=0, crop=13)[0]


@pytest.mark.parametrize("kernel", [{"kind": "box", "size": 15}, {"kind": "copies", "size": 11, "extent": (3.0, 7.0)}])
def test_blurred_crop_is_a_crop_of_the_blurred_photo(kernel):
    photo = np.random.default_rng(0).integers(0, 256, (60, 50, 3)).astype(np.uint8)
    found = pipeline.BlurredCrop(16, kernel).random_map({"image": photo, "name": "x"}, np.random.default_rng(5))
    rng, margin = np.random.default_rng(5), kernel["size"] // 2
    larger = pipeline.Crop(16 + 2 * margin).random_map({"image": photo, "name": "x"}, rng)["image"]
    drawn = blur.draw(rng, kernel).astype(np.float64)
    wanted = np.stack([signal.convolve2d(larger[..., c] / 255.0, drawn, mode="valid") for c in range(3)], -1)
    assert np.abs(found["blurry"] / 255.0 - wanted).max() <= 0.5 / 255 + 1e-6
    np.testing.assert_array_equal(found["sharp"], larger[margin:-margin, margin:-margin])


def two_streams():
    streams = [pipeline.stream(labelled(count), pipeline.Crop(4), seed) for count, seed in ((5, 1), (3, 2))]
    return [pipeline.rename(s, {"image": key}) for s, key in zip(streams, ("unknown_blur", "known_blur"), strict=True)]


def numbers(batch, key):
    return batch[key][:, 0, 0, 0].tolist()


def test_streams_are_cycled_each_at_its_own_length():
    batches = pipeline.batches(two_streams(), 1, 0, 1)
    for key, length in (("unknown_blur", 5), ("known_blur", 3)):
        seen = [numbers(batches[step], key)[0] for step in range(15)]
        epochs = [sorted(seen[start : start + length]) for start in range(0, 15, length)]
        assert epochs == [list(range(length))] * (15 // length)


@pytest.mark.parametrize("step", [0, 7, 123])
def test_the_batches_of_two_processes_join_to_the_batch_of_one(step):
    whole = pipeline.batches(two_streams(), 4, 0, 1)[step]
    parts = [pipeline.batches(two_streams(), 4, process, 2)[step] for process in range(2)]
    for key, photos in whole.items():
        assert photos.shape == ((4, 2) if key == "name" else (4, 4, 4, 3)) and len(parts[0][key]) == 2
        np.testing.assert_array_equal(np.concatenate([part[key] for part in parts]), photos)


def test_a_batch_names_the_photos_of_every_stream():
    batch = pipeline.batches(two_streams(), 4, 0, 1)[5]
    for column, key in enumerate(("unknown_blur", "known_blur")):
        wanted = [f"labelled/{number:05d}" for number in numbers(batch, key)]
        assert batch["name"][:, column].tolist() == wanted


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_a_start_in_the_middle_gives_the_batches_that_would_have_come(threads):
    batches = pipeline.batches(two_streams(), 2, 0, 1)
    late = list(pipeline.iterate(batches, 3, 8, threads, 2))
    assert len(late) == 5
    for step, batch in enumerate(late, 3):
        assert batch.keys() == batches[step].keys()
        assert all((batch[key] == batches[step][key]).all() for key in batch)


# -------------------------------------------------------------------------------------------------------------- domains


def camera_config(**paths):
    config = camera.get_config()
    config.data.update({key: str(path) for key, path in paths.items()})
    return config


def test_your_own_folders_are_two_piles(tmp_path):
    write(tmp_path / "shots" / "day" / "10.png", 3)
    write(tmp_path / "shots" / "day" / "9.png", 2)
    write(tmp_path / "clear" / "a.png", 7)
    config = camera_config(unknown_blur=tmp_path / "shots", unknown_sharp=tmp_path / "clear")
    unknown = domains.open_unknown(config)
    assert [unknown.blur[i]["image"][0, 0, 0] for i in range(len(unknown.blur))] == [2, 3]
    assert len(unknown.sharp) == 1 and unknown.sharp[0]["image"][0, 0, 0] == 7
    assert unknown.validation is unknown.test is unknown.pairs is None


def test_your_own_test_photos_are_paired_by_name(tmp_path):
    for name, level in (("a", 10), ("b", 20)):
        write(tmp_path / "blur" / f"{name}.png", level)
        write(tmp_path / "sharp" / f"{name}.bmp", level + 1)
    write(tmp_path / "pile" / "c.png", 30)
    folders = {"unknown_blur": "pile", "unknown_sharp": "pile", "test_blur": "blur", "test_sharp": "sharp"}
    config = camera_config(**{key: tmp_path / name for key, name in folders.items()})
    test = domains.open_unknown(config).test
    assert [(test[i]["blurry"][0, 0, 0], test[i]["sharp"][0, 0, 0]) for i in range(2)] == [(10, 11), (20, 21)]
    (tmp_path / "sharp" / "b.bmp").unlink()
    with pytest.raises(UserError, match=r"data\.test_sharp .*lacks the twin of b \(1 missing\)"):
        domains.open_unknown(config)


def test_test_photos_of_one_name_in_two_folders_keep_their_own_twins(tmp_path):
    for scene, level in (("one", 10), ("two", 20)):
        write(tmp_path / "blur" / scene / "0000.png", level)
        write(tmp_path / "sharp" / scene / "0000.png", level + 1)
    write(tmp_path / "pile" / "c.png", 30)
    folders = {"unknown_blur": "pile", "unknown_sharp": "pile", "test_blur": "blur", "test_sharp": "sharp"}
    config = camera_config(**{key: tmp_path / name for key, name in folders.items()})
    test = domains.open_unknown(config).test
    assert [(test[i]["blurry"][0, 0, 0], test[i]["sharp"][0, 0, 0]) for i in range(2)] == [(10, 11), (20, 21)]
    write(tmp_path / "sharp" / "one" / "0000.bmp", 5)
    with pytest.raises(UserError, match=r"data\.test_sharp has two photos of one name"):
        domains.open_unknown(config)


def test_a_pair_is_read_once(monkeypatch):
    source, reads = ArraySource("pair", blurry=labelled(4).arrays["image"], sharp=labelled(4).arrays["image"]), []
    read = ArraySource.__getitem__
    monkeypatch.setattr(ArraySource, "__getitem__", lambda self, index: reads.append(index) or read(self, index))
    pipeline.batches([pipeline.stream(source, pipeline.Crop(4), 0)], 2, 0, 1)[0]
    assert len(reads) == 2


def test_both_missing_folders_are_named_at_once(tmp_path):
    (tmp_path / "empty").mkdir()
    config = camera_config(unknown_blur=tmp_path / "nowhere", unknown_sharp=tmp_path / "empty")
    with pytest.raises(UserError) as caught:
        domains.open_unknown(config)
    first, second = str(caught.value).splitlines()
    assert first == f"data.unknown_blur is {tmp_path / 'nowhere'}: no such folder"
    assert second == f"data.unknown_sharp is {tmp_path / 'empty'}: no photos in it (found: nothing)"


def reds_config(tmp_path):
    write_tree(tmp_path / "GOPRO_Large", "gopro")
    write_tree(tmp_path / "REDS", "reds")
    config = reds.get_config()
    config.data.root = str(tmp_path)
    return config


def test_a_dataset_is_split_by_scene_and_the_split_is_recorded(tmp_path):
    unknown = domains.open_unknown(reds_config(tmp_path))
    record = unknown.split
    blurry, sharp = (record[key] for key in ("unknown_blur", "unknown_sharp"))
    assert (blurry["photos"], sharp["photos"]) == (2, 2) and record["ratio"] == 0.6 and record["seed"] == 0
    assert sorted(blurry["scenes"] + sharp["scenes"]) == list(SCENES)
    levels = {"000": [0, 2], "001": [4, 6]}
    assert [unknown.blur[i]["image"][0, 0, 0] for i in range(2)] == levels[blurry["scenes"][0]]
    assert [unknown.sharp[i]["image"][0, 0, 0] for i in range(2)] == [x + 1 for x in levels[sharp["scenes"][0]]]
    assert [unknown.pairs[i]["sharp"][0, 0, 0] for i in range(2)] == [x + 1 for x in levels[blurry["scenes"][0]]]
    assert [unknown.test[i]["blurry"][0, 0, 0] for i in range(4)] == [50, 52, 54, 56]


def test_paths_of_the_downloads_can_be_given(tmp_path):
    config = reds_config(tmp_path)
    (tmp_path / "GOPRO_Large").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"data\.known_path"):
        domains.open_known(config)
    config.data.known_path = str(tmp_path / "elsewhere")
    known = domains.open_known(config)
    assert (len(known.train), len(known.validation)) == (4, 4)


def test_the_known_blur_is_made_of_what_its_source_names(tmp_path):
    config = reds_config(tmp_path)
    config.data.scenes.known_kernel.update(size=3, length=(1.0, 2.0))
    config.known_blur.path = config.data.unknown_path or str(tmp_path / "REDS")
    known, unknown = domains.open_known(config), domains.open_unknown(config)

    def levels(source, count, crop=4):
        """The grey levels of one epoch of crops, by their keys."""
        found = {}
        for supply in known_blur.SOURCES[source](config, known, unknown):
            stream = pipeline.rename(pipeline.stream(supply.source, supply.crop(crop), 0), supply.names)
            for i in range(count):
                for key in supply.names.values():
                    found.setdefault(key, []).append(int(stream[i][key][0, 0, 0, 0]))
        return found

    camera = [int(unknown.sharp[i]["image"][0, 0, 0]) for i in range(2)]
    assert sorted(levels("paired", 4)["known_blur"]) == [0, 2, 4, 6]
    assert sorted(levels("synthetic", 2, crop=2)["known_blur"]) == camera
    assert len(levels("folder", 3)["known_blur"]) == 3
    pairs = levels("extractor", 4)
    assert pairs.keys() == {"known_sharp", "known_blurry", "unknown_sharp"}
    assert [x + 1 for x in pairs["known_blurry"]] == pairs["known_sharp"] and set(pairs["unknown_sharp"]) == set(camera)


def test_moved_blur_is_that_of_the_pair_on_the_next_scene():
    sharp = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), np.uint8)
    source = domains.moved(sharp, {"kind": "box", "length": (3.0, 9.0), "angle": (0.0, 0.0), "size": 11}, seed=4)
    rng = np.random.default_rng([4, 3])
    for i in range(3):
        kernel = blur.draw(rng, {"kind": "box", "length": (3.0, 9.0), "angle": (0.0, 0.0), "size": 11})
        record = source[i]
        for photo, blurry in (("sharp", "blurry"), ("target", "truth")):
            wanted = blur.round8(blur.apply(record[photo].astype(np.float32) / 255.0, kernel))
            np.testing.assert_array_equal(record[blurry], wanted)
        np.testing.assert_array_equal(record["target"], sharp[(i + 1) % 3])
        np.testing.assert_array_equal(record["other"], source[(i + 1) % 3]["blurry"])


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A configuration of generated scenes of 32 px, and both domains."""
    config = demo.get_config("quick")
    config.data.root = str(tmp_path_factory.mktemp("data"))
    config.data.scenes.update(size=32, known=4, blur=5, sharp=4, validation=3, test=3)
    return config, domains.open_known(config), domains.open_unknown(config)


def test_generated_sets_are_disjoint(generated):
    _, known, unknown = generated
    sets = [known.train.arrays["image"], unknown.pairs.arrays["sharp"], unknown.sharp.arrays["image"]]
    sets += [unknown.validation.arrays["sharp"], unknown.test.arrays["sharp"]]
    assert [len(photos) for photos in sets] == [4, 5, 4, 3, 3]
    assert len({photo.tobytes() for photos in sets for photo in photos}) == 19


def test_generated_blur_is_that_of_its_camera(generated):
    config, known, unknown = generated
    photos, pairs = unknown.blur.arrays["image"], unknown.pairs.arrays
    np.testing.assert_array_equal(photos, pairs["blurry"])
    rng, kernel = np.random.default_rng([0, 5]), config.data.scenes.unknown_kernel.to_dict()
    for blurry, sharp in zip(photos, pairs["sharp"], strict=True):
        wanted = blur.apply(sharp.astype(np.float32) / 255, blur.draw(rng, kernel))
        assert np.abs(blurry / 255.0 - wanted).max() <= 0.5 / 255 + 1e-5
    assert unknown.test[0].keys() == {"sharp", "blurry", "known_blurry", "name"}
    assert known.train[0].keys() == {"image", "name"} and known.crop(8).size == 8


def test_generated_scenes_are_drawn_once_and_the_same_again(generated):
    config, _, unknown = generated
    files = sorted(Path(config.data.root, "scenes").glob("*.npy"))
    times = [path.stat().st_mtime_ns for path in files]
    again = domains.open_unknown(config)
    assert len(files) == 5 and times == [path.stat().st_mtime_ns for path in files]
    for key, photos in unknown.test.arrays.items():
        np.testing.assert_array_equal(again.test.arrays[key], photos)
    assert unknown.split is None


# ------------------------------------------------------------------------------------ the folders of the published code


def original_config(tmp_path, names):
    """trainA and trainB with photos of `names`; trainC and trainD with ten scenes of two pairs."""
    for folder, first in (("trainA", 0), ("trainB", 100)):
        for number, name in enumerate(names):
            write(tmp_path / "original" / folder / name, first + number)
    for folder, first in (("trainC", 0), ("trainD", 1)):
        for scene, i in itertools.product(range(10), range(2)):
            write(tmp_path / "original" / folder / f"{scene}" / f"{i}.png", 20 * scene + 2 * i + first)
    config = camera.get_config()
    config.data.update(root=str(tmp_path), known="original", unknown="original")
    return config


def levels_of(source):
    return [int(source[index]["image"][0, 0, 0]) for index in range(len(source))]


def test_flat_folders_are_cut_as_published(tmp_path):
    unknown = domains.open_unknown(original_config(tmp_path, [f"{i:02d}.png" for i in range(10)]))
    assert levels_of(unknown.blur) == [0, 1, 2, 3, 4, 5] and levels_of(unknown.sharp) == [106, 107, 108, 109]
    assert unknown.test is unknown.pairs is None and unknown.split["unknown_blur"]["photos"] == 6


def flat(name, count):
    return [Photo(Path(name) / f"{i}.png", None, f"{i}.png") for i in range(count)]


@pytest.mark.parametrize("counts", [(10, 5), (5, 10)])
def test_flat_folders_are_each_cut_at_their_own_length(counts):
    blurry, sharp = split.apart(flat("a", counts[0]), flat("b", counts[1]), 0.6, seed=0)
    assert blurry == flat("a", counts[0] * 6 // 10) and sharp == flat("b", counts[1])[counts[1] * 6 // 10 :]


def test_published_folders_are_scored_on_pairs_that_are_given(tmp_path):
    config = original_config(tmp_path, [f"{i:02d}.png" for i in range(10)])
    for part in ("test_blur", "test_sharp"):
        write(tmp_path / part / "0.png", 7)
        config.data[part] = str(tmp_path / part)
    assert len(domains.open_unknown(config).test) == 1


def test_folders_of_the_same_scenes_are_divided_by_scene(tmp_path):
    names = [f"{scene}/{i}.png" for scene in range(10) for i in range(2)]
    unknown = domains.open_unknown(original_config(tmp_path, names))
    scenes = [{level % 100 // 2 for level in levels_of(source)} for source in (unknown.blur, unknown.sharp)]
    assert len(scenes[0]) == 6 and len(scenes[1]) == 4 and not scenes[0] & scenes[1]


def test_folders_of_other_scenes_are_whole(tmp_path):
    config = original_config(tmp_path, ["a/1.png", "b/1.png"])
    (tmp_path / "original" / "trainB" / "a").rename(tmp_path / "original" / "trainB" / "c")
    (tmp_path / "original" / "trainB" / "b").rename(tmp_path / "original" / "trainB" / "d")
    unknown = domains.open_unknown(config)
    assert levels_of(unknown.blur) == [0, 1] and levels_of(unknown.sharp) == [100, 101]


def test_a_scene_of_the_known_pairs_is_held_out(tmp_path):
    known = domains.open_known(original_config(tmp_path, ["a.png"]))
    train, held_out = ([int(s[i]["sharp"][0, 0, 0]) for i in range(len(s))] for s in (known.train, known.validation))
    assert (len(train), len(held_out)) == (18, 2) and not {x // 20 for x in train} & {x // 20 for x in held_out}
    assert sorted(train + held_out) == [20 * scene + 2 * i + 1 for scene in range(10) for i in range(2)]


def test_a_validation_part_is_validated_on(tmp_path):
    config = reds_config(tmp_path)
    write_tree(tmp_path, "curated")
    config.data.update(known="curated", unknown="curated", name="GOPRO_A")
    known, unknown = domains.open_known(config), domains.open_unknown(config)
    for source, first in ((known.validation, 50), (unknown.validation, 50), (unknown.test, 100)):
        assert [source[i]["blurry"][0, 0, 0] for i in range(4)] == [first, first + 2, first + 4, first + 6]


def test_a_layout_without_pairs_is_no_known_dataset(tmp_path):
    config = reds_config(tmp_path)
    config.data.known = "folder"
    with pytest.raises(UserError, match=r"data\.known is 'folder', which has no train photos"):
        domains.open_known(config)


def test_a_share_of_the_piles_leaves_whole_scenes_out():
    photos = [Photo(Path(f"{scene}/{i}.png"), None, f"{scene}") for scene in range(8) for i in range(4)]
    kept = split.thinned(photos, 0.25, seed=3)
    assert len(kept) == 8 and len({photo.scene for photo in kept}) == 2
    assert split.thinned(photos, 1.0, seed=3) == photos
    with pytest.raises(UserError, match="at least two scenes"):
        split.thinned(photos[:4], 0.5, seed=3)


def test_neighbouring_frames_are_cut_into_whole_runs_of_one_scene():
    photos = [
        Photo(Path(f"{scene}/{i}.png"), None, scene)
        for scene, count in (("a", 6), ("b", 2), ("c", 5))
        for i in range(count)
    ]
    runs = [[path.as_posix() for path in run] for run in split.windows(photos, 3)]
    assert runs == [
        [f"{scene}/{i}.png" for i in some] for scene, some in (("a", (0, 1, 2)), ("a", (3, 4, 5)), ("c", (0, 1, 2)))
    ]
