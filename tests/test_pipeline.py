"""Batches are a pure function of the step, however they are asked for. Channels tell the photo and the place."""

import hashlib
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.labelled import labelled
from helpers.trees import write_tree
from PIL import Image

from b2b_jax import images, levels
from b2b_jax.data import domains, pipeline
from b2b_jax.data.photo import Photo
from b2b_jax.data.skipping import BadPhotos, Skipping
from b2b_jax.data.sources import ArraySource, Pairs, Photos
from b2b_jax.errors import UserError
from b2b_jax.method.known_blur import Supply
from b2b_jax.stages import blur_extractor, common, deblurrer, known_blur, translator
from b2b_jax.stages.run import Run, centre_crops
from b2b_jax.training import loop
from configs import demo, reds

PHOTOS, BATCH = 8, 4
EPOCH = PHOTOS // BATCH  # groups


def pairs_on_disk(folder):
    """Pairs, one of them broken."""
    pairs = []
    for number, photo in enumerate(labelled(PHOTOS).arrays["image"]):
        files = [folder / f"{number}{twin}.png" for twin in ("", "_sharp")]
        for twin, file in enumerate(files):
            images.write(file, photo + np.uint8(100 * twin))
        pairs.append(Photo(*files, ""))
    pairs[3].sharp.write_bytes(pairs[3].sharp.read_bytes()[:60])
    return Skipping(Pairs(pairs), BadPhotos())


def batches(source, crops, process=0, processes=1):
    return pipeline.batches([pipeline.stream(source, pipeline.Crop(4), 0, crops)], BATCH, process, processes)


def digest(batch):
    """The hash of a batch: its keys, its pixels and the names of its photos."""
    found = hashlib.sha256()
    for key in sorted(batch):
        found.update(key.encode() + (repr(batch[key].tolist()).encode() if key == "name" else batch[key].tobytes()))
    return found.hexdigest()


def joined(parts):
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("crops", [1, 2])
def test_two_epochs_are_the_same_after_a_restart_at_any_step(tmp_path, crops, processes):
    steps = 2 * EPOCH * crops
    whole = batches(pairs_on_disk(tmp_path), crops)
    wanted = [digest(whole[step]) for step in range(steps)]
    assert len(set(wanted)) == steps
    for threads in (0, 1, 2):
        for start in range(steps):
            source = pairs_on_disk(tmp_path)
            runs = [
                pipeline.iterate(batches(source, crops, process, processes), start, steps, threads, prefetch=3)
                for process in range(processes)
            ]
            assert [digest(joined(parts)) for parts in zip(*runs, strict=True)] == wanted[start:]


def test_a_run_may_stop_within_a_group():
    made = batches(labelled(PHOTOS), 3)
    for stop in (1, 2, 3, 5):
        found = [digest(batch) for batch in pipeline.iterate(made, 1, stop, 2, 4)]
        assert found == [digest(made[step]) for step in range(1, stop)]


def test_one_crop_of_several_is_the_one_that_would_have_been_cut_alone():
    one, three = (pipeline.stream(labelled(5), pipeline.Crop(4), 0, crops) for crops in (1, 3))
    for index in range(10):
        assert three[index]["image"].shape == (3, 4, 4, 3)
        np.testing.assert_array_equal(three[index]["image"][:1], one[index]["image"])
    places = [three[index]["image"][:, 0, 0, 1:].tolist() for index in range(10)]
    assert any(a != b for a, b, _ in places) and any(b != c for _, b, c in places)


@pytest.mark.parametrize("crops", [1, 2, 4])
def test_a_batch_has_as_many_photos_as_images_and_the_next_ones_show_them_again(crops):
    made = batches(labelled(PHOTOS), crops)
    shown = [made[step]["image"][:, 0, 0, 0].tolist() for step in range(EPOCH * crops)]
    assert all(len(set(photos)) == BATCH for photos in shown)
    assert all(shown[step] == shown[step - step % crops] for step in range(len(shown)))
    assert sorted(number for photos in shown[::crops] for number in photos) == list(range(PHOTOS))


def test_photos_are_decoded_once_for_their_crops(monkeypatch):
    reads, read = [], ArraySource.__getitem__
    monkeypatch.setattr(ArraySource, "__getitem__", lambda self, index: reads.append(index) or read(self, index))
    made = batches(labelled(PHOTOS), 3)
    assert len(list(pipeline.iterate(made, 0, 6, threads=2, prefetch=1))) == 6
    assert sorted(reads) == list(range(PHOTOS))


def test_a_crop_keeps_no_whole_photo_in_memory():
    element = pipeline.stream(labelled(2), pipeline.Crop(4), 0, 2)[0]["image"]
    assert element.base is None or element.base.nbytes == element.nbytes


@pytest.mark.parametrize("crops", [1, 2])
def test_a_resized_pair_is_cut_from_the_resized_photos_alike(tmp_path, crops):
    rng = np.random.default_rng(0)
    pair = {key: rng.integers(0, 256, (1, 30, 40, 3), np.uint8) for key in ("blurry", "sharp")}
    small = {key: np.asarray(Image.fromarray(v[0]).resize((26, 20), Image.BICUBIC)) for key, v in pair.items()}
    stream = pipeline.stream(ArraySource("pair", **pair), pipeline.Crop(8), 0, crops, resize=20)
    batch = pipeline.batches([stream], 4, 0, 1)[5]
    assert batch["blurry"].shape == (4, 8, 8, 3)
    places = [place(small["blurry"], crop) for crop in batch["blurry"]]
    assert [place(small["sharp"], crop) for crop in batch["sharp"]] == places and len(set(places)) > 1


def place(photo, crop):
    """Where the one copy of the crop lies in the photo."""
    windows = np.lib.stride_tricks.sliding_window_view(photo, crop.shape)[:, :, 0]
    ((top, left),) = np.argwhere((windows == crop).all(axis=(2, 3, 4)))
    return int(top), int(left)


def test_a_photo_smaller_than_the_crop_is_enlarged_where_photos_are_resized(tmp_path):
    images.write(tmp_path / "small.png", np.full((6, 9, 3), 77, np.uint8))
    source = Skipping(Photos([tmp_path / "small.png"]), BadPhotos())
    element = pipeline.stream(source, pipeline.Crop(8), 0, resize=10)[0]
    assert (element["image"] == 77).all() and not source.bad.lines
    assert pipeline.extent(pipeline.Crop(8), 10) == 1 and pipeline.extent(pipeline.Crop(8)) == 8


@pytest.fixture
def photos(tmp_path):
    """GoPro and REDS in the layouts of their downloads, small photos of noise, by their paths."""
    rng, found = np.random.default_rng(0), {}
    for name, folder in (("gopro", "GOPRO_Large"), ("reds", "REDS")):
        write_tree(tmp_path / folder, name)
        for path in (tmp_path / folder).rglob("*0*.png"):
            found[str(path)] = rng.integers(0, 256, (30, 40, 3), np.uint8)
            images.write(path, found[str(path)])
    return found


@pytest.mark.parametrize(("variant", "resize"), [("release", 20), ("paper", 0)])
@pytest.mark.parametrize("crops", [1, 2])
def test_the_translator_is_fed_crops_of_resized_photos_as_its_config_says(tmp_path, photos, variant, resize, crops):
    config = reds.get_config(variant)
    assert config.translator.resize == (512 if variant == "release" else 0)
    config.translator.update(resize=resize, crop=8, batch=2)
    config.data.update(root=str(tmp_path), crops_per_image=crops)
    run = Run(config, tmp_path / "run")
    batches = translator.batches(run, known_blur.supplies(run, "extractor"))
    seen = []
    for step in range(4):
        batch = batches[step]
        assert batch["name"].tolist() == batches[step - step % crops]["name"].tolist()
        for i, (camera, pair, sharp) in enumerate(batch["name"]):
            files = {"unknown_blur": camera, "unknown_sharp": sharp, "known_blurry": pair}
            files["known_sharp"] = pair.replace("/blur/", "/sharp/")
            resized = {"unknown_blur", "unknown_sharp"} if resize else ()  # the deblurrer knows the known blur as it is
            shown = {k: levels.resize_shorter(photos[f], resize if k in resized else 30) for k, f in files.items()}
            places = {key: place(photo, batch[key][i]) for key, photo in shown.items()}
            assert places["known_blurry"] == places["known_sharp"]
            seen.append((camera, places["unknown_blur"]))
    assert len(set(seen)) == 8


@pytest.mark.parametrize("stage", [deblurrer, blur_extractor])
def test_the_other_stages_train_on_several_crops_of_a_photo(tmp_path, monkeypatch, stage):
    config, fed = demo.get_config("quick"), []
    config.data.update(root=str(tmp_path), crops_per_image=3)
    config.data.scenes.update(known=5, validation=2, size=300)
    config.blur_extractor.update(batch=4, crop=256)
    config.evaluation.validation_crop = 256

    class Trained(Exception):
        pass

    def train(task, dataset, *rest):
        fed.extend(dataset[step] for step in range(4))
        raise Trained

    monkeypatch.setattr(loop, "train", train)
    with pytest.raises(Trained):
        stage.fit(Run(config, tmp_path / "run"), lambda: None)
    names = [batch["name"].tolist() for batch in fed]
    assert names[0] == names[1] == names[2] != names[3]
    assert (fed[0]["sharp"] != fed[1]["sharp"]).any()


def test_the_blur_extractor_is_validated_on_crops_that_it_takes(tmp_path, monkeypatch):
    run = Run(demo.get_config("quick"), tmp_path)
    pairs = labelled(2, side=21)
    crops = centre_crops(pairs, 0, 96, 8)["image"]
    np.testing.assert_array_equal(np.rint(255 * crops), [x[2:18, 2:18] for x in pairs.arrays["image"]])
    run.__dict__["known"] = domains.Known(pairs, pipeline.Crop, pairs)
    cut = []
    monkeypatch.setattr(blur_extractor, "centre_crops", lambda *args: cut.append(args))
    blur_extractor.validate(run, SimpleNamespace(stride=8))
    assert [multiple for *_, multiple in cut] == [8]
    with pytest.raises(UserError, match=r"00000 is 21x21 pixels, .* the 32 that the blur extractor's validation"):
        blur_extractor.check_validation(run, 32)


def test_streams_of_a_stage_have_several_crops_of_a_photo_unless_it_wants_one(tmp_path):
    run = Run(demo.get_config("quick"), tmp_path)
    run.config.data.crops_per_image = 3
    supplies = [Supply(labelled(PHOTOS), pipeline.Crop, {"image": name}) for name in ("unknown_sharp", "known_sharp")]
    for options, shared in (({}, 3), ({"crops": 1}, 1)):
        batches = common.batches(run, common.streams(run, supplies, 4, 0, **options), BATCH)
        names = [batches[step]["name"].tolist() for step in range(4)]
        assert [name == names[0] for name in names] == [step < shared for step in range(4)]
    few, one = (common.streams(run, supplies, 4, 0, crops=crops)[0][5]["unknown_sharp"][0] for crops in (3, 1))
    np.testing.assert_array_equal(few, one)


def test_two_streams_of_one_name_are_refused():
    twice = [pipeline.stream(labelled(PHOTOS), pipeline.Crop(4), seed, 1) for seed in range(2)]
    with pytest.raises(ValueError, match="two streams of one batch both name images image; give"):
        pipeline.batches(twice, BATCH, 0, 1)[0]


def test_the_middles_of_photos_are_taken_with_one_photo_in_memory():
    shapes, alive = [(30, 41), (19, 24), (25, 26)], []

    class Photographs:
        def __len__(self) -> int:
            return len(shapes)

        def __getitem__(self, index: int) -> dict:
            assert sum(photo() is not None for photo in alive) < 2
            photo = np.arange(np.prod(shapes[index]) * 3, dtype=np.uint32).reshape(*shapes[index], 3).astype(np.uint8)
            alive.append(weakref.ref(photo))
            return {"image": photo, "name": str(index)}

    got = centre_crops(Photographs(), 0, 22)["image"]
    for index, (height, width) in enumerate(shapes):
        top, left = (height - 19) // 2, (width - 19) // 2
        wanted = Photographs()[index]["image"][top : top + 19, left : left + 19]
        np.testing.assert_array_equal(got[index], wanted / np.float32(255))
    assert centre_crops(Photographs(), 1, 22)["image"].shape == (1, 22, 22, 3)
