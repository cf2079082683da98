"""Tiny trees in every official layout: what is found in them, and what is said when they are not as they should be."""

import itertools
import json
import shlex
import shutil
from pathlib import Path

import pytest
from helpers.trees import TREES, VARIANTS, write, write_tree
from PIL import Image

from b2b_jax.data import finding
from b2b_jax.data.layouts import LAYOUTS
from b2b_jax.data.sources import Pairs
from b2b_jax.errors import UserError

OPTION = "--config.data.known_path"
PAIRED = [(name, part) for name, tree in TREES.items() for part in tree]


def find(name, root, part):
    return finding.find(name, root, part, OPTION, VARIANTS.get(name, ""))


def levels(photos):
    """Grey levels of the blurry and the sharp photos."""
    records = [Pairs(photos)[index] for index in range(len(photos))]
    return [record["blurry"][0, 0, 0] for record in records], [record["sharp"][0, 0, 0] for record in records]


def test_every_layout_is_tested():
    assert TREES.keys() | {"folder"} == LAYOUTS.keys()


def test_published_counts():
    counts = {name: [part.photos for part in layout.parts.values()] for name, layout in LAYOUTS.items()}
    assert counts["gopro"] == [2_103, 1_111] and counts["reds"] == [24_000, 3_000]
    assert counts["rsblur"] == [8_878, 1_120, 3_360] and counts["rb2v_street"] == [9_000, 2_053]
    assert counts["realblur_j"] == [3_758, 980] and counts["hide"] == [6_397, 2_025]


@pytest.mark.parametrize(("name", "part"), PAIRED)
def test_a_layout_finds_its_pairs(tmp_path, name, part):
    write_tree(tmp_path, name)
    photos = find(name, tmp_path, part)
    first = 50 * list(TREES[name]).index(part)
    assert levels(photos) == ([first, first + 2, first + 4, first + 6], [first + 1, first + 3, first + 5, first + 7])
    assert [photo.scene for photo in photos] == ["000", "000", "001", "001"]


def test_the_piles_of_the_original_have_no_twins(tmp_path):
    for folder in ("trainA", "trainB", "testA"):
        write(tmp_path / folder / "day" / "1.png", 3)
        write(tmp_path / folder / "2.png", 4)
    for part, folder in (("unknown_blur", "trainA"), ("unknown_sharp", "trainB"), ("test", "testA")):
        photos = find("original", tmp_path, part)
        assert [photo.sharp for photo in photos] == [None, None]
        assert [photo.scene for photo in photos] == [f"{folder}/2.png", "day"]


def test_gopros_other_blur_has_the_same_twins(tmp_path):
    write_tree(tmp_path, "gopro")
    write(tmp_path / "train/000/blur_gamma/000001.png", 77)
    (photo,) = finding.find("gopro", tmp_path, "train", OPTION, "blur_gamma")
    assert levels([photo]) == ([77], [1])
    with pytest.raises(UserError, match="known_variant is 'gamma'; gopro has blur or blur_gamma"):
        finding.find("gopro", tmp_path, "train", OPTION, "gamma")


def test_a_curated_part_must_be_named(tmp_path):
    write_tree(tmp_path, "curated")
    for option, variant in ((OPTION, "--config.data.name"), ("--source", "--variant")):
        with pytest.raises(UserError, match=rf"^{variant} is ''; .*which has GOPRO_A, GOPRO_B"):
            finding.find("curated", tmp_path, "train", option)


def test_a_twin_is_found_under_a_root_whose_own_path_has_the_same_names(tmp_path):
    root = tmp_path / "blur" / "train_blur" / "x"
    write_tree(root, "gopro")
    assert all(photo.sharp.is_file() for photo in find("gopro", root, "train"))


def test_linked_folders_are_followed_each_once(tmp_path):
    root = tmp_path / "sets" / "mine" / "train"
    for level, kind in enumerate(("blur", "sharp")):
        write(tmp_path / "elsewhere" / kind / "deep" / "1.png", 10 + level)
        write(root / kind / "near" / "2.png", 20 + level)
        (root / kind / "far").symlink_to(tmp_path / "elsewhere" / kind)
    (root / "blur" / "again").symlink_to("near")  # comes first by its name, and has no twins
    (root / "blur" / "near" / "loop").symlink_to(root / "blur")
    found = finding.find("curated", tmp_path / "sets", "train", OPTION, "mine")
    assert [photo.blurry.relative_to(root).as_posix() for photo in found] == ["blur/far/deep/1.png", "blur/near/2.png"]
    assert levels(found) == ([10, 20], [11, 21])


# ----------------------------------------------------------------------------------------------------------- list files


def write_listed(root, name, form):
    """Photos that only a list assigns to a part, and the lists' lines "sharp blurry "."""
    lines = []
    for count, (scene, i) in enumerate(itertools.product(("0001", "0002"), (1, 2))):
        blurry, sharp = (text.format(s=scene, i=i) for text in form)
        write(root.parent / blurry, 2 * count)
        write(root.parent / sharp, 2 * count + 1)
        lines.append(f"{sharp} {blurry} ")
    return lines


RSBLUR = ("RSBlur/{s}/{i:06d}/real_blur/real_blur.png", "RSBlur/{s}/{i:06d}/gt/gt_sharp.png")


@pytest.mark.parametrize("place", ["RSBlur", "", "RSBlur/datalist", "RSBlur/datalist/RSBlur"])
def test_rsblur_follows_its_official_lists(tmp_path, place):
    lines = write_listed(tmp_path / "RSBlur", "rsblur", RSBLUR)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "RSBlur_real_train.txt").write_text("\n".join(lines[::-1][:3]) + "\n")
    photos = finding.find("rsblur", tmp_path / "RSBlur", "train", OPTION)
    assert levels(photos) == ([2, 4, 6], [3, 5, 7]) and [p.scene for p in photos] == ["0001", "0002", "0002"]


def test_a_list_is_followed_in_a_download_of_another_name(tmp_path):
    lines = write_listed(tmp_path / "RSBlur", "rsblur", RSBLUR)
    (tmp_path / "RSBlur").rename(tmp_path / "blurs")
    (tmp_path / "blurs" / "RSBlur_real_test.txt").write_text("\n".join(lines))
    assert levels(finding.find("rsblur", tmp_path / "blurs", "test", OPTION))[0] == [0, 2, 4, 6]


def test_realblur_follows_its_official_lists(tmp_path):
    folder = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
    form = (f"{folder}/scene{{s}}/blur/blur_{{i}}.png", f"{folder}/scene{{s}}/gt/gt_{{i}}.png")
    lines = write_listed(tmp_path / "RealBlur" / "x", "realblur_j", form)
    (tmp_path / "RealBlur" / "RealBlur_J_test_list.txt").write_text("\n".join(lines))
    photos = finding.find("realblur_j", tmp_path / "RealBlur", "test", OPTION)
    assert levels(photos) == ([0, 2, 4, 6], [1, 3, 5, 7]) and photos[3].scene == "scene0002"


def test_rb2v_follows_its_metadata(tmp_path):
    rows = []
    for number in range(4):
        write(tmp_path / f"0000{number}" / "blur" / "0000.png", 2 * number)
        paths = {f"frame{k:03d}_path": f"0000{number}/sharp/0000_{k}.png" for k in range(1, 8)}
        for k, path in enumerate(paths.values(), 1):
            write(tmp_path / path, 2 * number + 1 if k == 4 else 200)
        partition = "test" if number == 3 else "train"
        rows.append({"partition": partition, "blur_path": f"0000{number}/blur/0000.png", **paths})
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps({"name": "Street", "frame_per_seq": 7, "data": rows}))
    photos = finding.find("rb2v_street", tmp_path, "train", OPTION)
    assert levels(photos) == ([0, 2, 4], [1, 3, 5]) and photos[2].scene == "00002"
    assert levels(finding.find("rb2v_street", tmp_path, "test", OPTION)) == ([6], [7])
    path.write_text("{}")
    with pytest.raises(UserError, match=r"metadata\.json is not RB2V's list"):
        finding.find("rb2v_street", tmp_path, "train", OPTION)


@pytest.mark.parametrize(("text", "wanted"), [("a b\nc\n", "line 2 has not two paths"), ("\n", "it is empty")])
def test_a_list_of_another_form_is_refused(tmp_path, text, wanted):
    (tmp_path / "RSBlur_real_val.txt").write_text(text)
    with pytest.raises(UserError, match=wanted):
        finding.find("rsblur", tmp_path, "validation", OPTION)


def test_listed_photos_that_are_not_there_are_counted(tmp_path):
    lines = write_listed(tmp_path / "RSBlur", "rsblur", RSBLUR)
    (tmp_path / "RSBlur_real_train.txt").write_text("\n".join(lines))
    (tmp_path / RSBLUR[0].format(s="0002", i=1)).unlink()
    with pytest.raises(UserError, match=r"1 of 4 listed photos are not there: .*0002/000001/real_blur/real_blur\.png"):
        finding.find("rsblur", tmp_path / "RSBlur", "train", OPTION)


# ------------------------------------------------------------------------------------------------- what is not as usual


@pytest.mark.parametrize("name", TREES)
def test_a_missing_download_is_named_with_its_source_and_option(tmp_path, name):
    with pytest.raises(UserError) as caught:
        find(name, tmp_path / "nowhere", "train")
    message = str(caught.value)
    assert str(tmp_path / "nowhere") in message and f"{OPTION}=DIR" in message
    assert LAYOUTS[name].source in message and "\n" not in message


@pytest.mark.parametrize("name", [name for name in TREES if name not in VARIANTS])
@pytest.mark.parametrize("inner", ["inner", "down/inner"])
def test_a_folder_too_high_is_told_which_was_meant(tmp_path, name, inner):
    root = tmp_path / "download"
    write_tree(root / inner, name)
    with pytest.raises(UserError) as caught:
        find(name, root, "train")
    message = str(caught.value)
    assert f"found there: {inner.split('/')[0]}." in message and "\n" not in message
    assert f"Did you mean {root / inner}? Then {OPTION}={root / inner}" in message


def test_a_folder_too_deep_is_told_which_was_meant(tmp_path):
    write_tree(tmp_path, "gopro")
    with pytest.raises(UserError, match=f"Did you mean {tmp_path}[?]"):
        find("gopro", tmp_path / "train", "train")


def test_a_folder_in_the_wrong_place_is_told_where_it_belongs(tmp_path):
    write(tmp_path / "train_blur" / "000" / "00000000.png", 1)
    with pytest.raises(UserError) as caught:
        find("reds", tmp_path, "train")
    assert f"{tmp_path}/train_blur/*/*.png would fit in {tmp_path}/train/: move it there" in str(caught.value)


def test_nothing_like_it_is_told_what_was_wanted_and_found(tmp_path):
    write(tmp_path / "cats" / "1.png", 1)
    with pytest.raises(UserError) as caught:
        find("rsblur", tmp_path, "train")
    message = str(caught.value)
    assert f"{tmp_path}/train/*/*/real_blur/real_blur.png and no RSBlur_real_train.txt" in message
    assert "found there: cats. Get RSBlur.zip" in message and "\n" not in message


@pytest.mark.parametrize("name", TREES)
def test_a_missing_twin_is_named_and_counted(tmp_path, name):
    write_tree(tmp_path, name)
    lost = tmp_path / TREES[name]["train"][1].format(s="001", i=2, o=3)
    lost.unlink()
    with pytest.raises(UserError, match="1 of 4 blurry have no sharp twin") as caught:
        find(name, tmp_path, "train")
    assert str(lost) in str(caught.value)


def test_listing_is_short_and_passes_over_hidden_files(tmp_path):
    assert finding.listing(tmp_path) == "nothing"
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).touch()
    assert finding.listing(tmp_path) == "a, b" and finding.listing(tmp_path, most=1) == "a, …"


# ------------------------------------------------------------------------------------------ downloads as they are found


@pytest.mark.parametrize("suffix", [".PNG", ".jpg", ".JPEG"])
@pytest.mark.parametrize("name", ["gopro", "rb2v_street", "realblur_j"])
def test_photos_of_another_kind_than_the_published_are_taken_and_that_is_said(tmp_path, name, suffix):
    write_tree(tmp_path, name)
    for path in [path for path in tmp_path.rglob("*.png") if path.read_bytes().startswith(b"\x89PNG")]:
        Image.open(path).convert("RGB").save(path.with_suffix(suffix))
        path.unlink()
    photos = find(name, tmp_path, "train")
    assert len(photos) == 4 and all(photo.sharp.is_file() for photo in photos)
    assert finding.other_kinds(name, "train", photos) == ("" if suffix == ".PNG" else suffix.lower())


def test_photos_of_the_published_kind_come_before_copies_of_others(tmp_path):
    write_tree(tmp_path, "gopro")
    wanted = find("gopro", tmp_path, "train")
    for photo in wanted:
        photo.blurry.with_suffix(".jpg").write_bytes(b"a preview")
    assert find("gopro", tmp_path, "train") == wanted


@pytest.mark.parametrize("place", [".ipynb_checkpoints", "@eaDir", "$RECYCLE.BIN/x", "System Volume Information"])
def test_what_machines_leave_in_a_layout_is_passed_over(tmp_path, place):
    for folder in ("trainA", "trainC", "trainD"):
        write(tmp_path / folder / "day" / "1.png", 3)
    for folder in ("trainA", "trainC/day"):
        write(tmp_path / folder / place / "1-checkpoint.png", 4)
    for part in ("unknown_blur", "train"):
        assert [photo.blurry.name for photo in find("original", tmp_path, part)] == ["1.png"]


def test_a_variant_that_is_there_alone_is_named_with_its_option(tmp_path):
    write_tree(tmp_path, "gopro")
    for folder in list(tmp_path.glob("*/*/blur")):
        shutil.rmtree(folder.with_name("blur_gamma"), ignore_errors=True)
        folder.rename(folder.with_name("blur_gamma"))
    with pytest.raises(UserError, match=r"There is blur_gamma: --config.data.known_variant=blur_gamma$"):
        find("gopro", tmp_path, "train")
    assert len(finding.find("gopro", tmp_path, "train", OPTION, "blur_gamma")) == 4


@pytest.mark.parametrize("name", ["train_blur", "unpacked blur"])
def test_archives_that_were_unpacked_into_folders_of_their_own_belong_together(tmp_path, name):
    write_tree(tmp_path / "all", "reds")
    wanted = levels(find("reds", tmp_path / "all", "train"))
    for kind, place in (("train_blur", name), ("train_sharp", "train_sharp")):
        (tmp_path / "apart" / place / "train").mkdir(parents=True)
        (tmp_path / "all" / "train" / kind).rename(tmp_path / "apart" / place / "train" / kind)
    assert levels(find("reds", tmp_path / "apart", "train")) == wanted


def test_the_line_that_is_proposed_works_when_it_is_pasted(tmp_path):
    write_tree(tmp_path / "my photos" / "REDS", "reds")
    with pytest.raises(UserError) as caught:
        find("reds", tmp_path / "my photos", "train")
    (word,) = [word for word in shlex.split(str(caught.value)) if word.startswith(OPTION)]
    assert len(find("reds", Path(word.removeprefix(f"{OPTION}=")), "train")) == 4
