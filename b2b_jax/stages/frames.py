"""The adaptation's pairs out of one's own videos: blurry frames, and what sharp ones near by tell of them."""

import numpy as np

from b2b_jax import extras, sharding
from b2b_jax.data import domains, near_frames, pipeline
from b2b_jax.data.near_frames import Index
from b2b_jax.data.sources import Photos, check_sizes
from b2b_jax.errors import UserError
from b2b_jax.method import adaptation
from b2b_jax.method.known_blur import Supply
from b2b_jax.stages import left_out, pairs
from b2b_jax.stages.pairs import Pairs
from b2b_jax.stages.run import Run

FEWEST = 8  # blurry frames that must be matched: as many as the photos of a pile that a camera is learnt from


def open_pairs(run: Run) -> Pairs | None:
    """The pairs of the run's videos, matched unless they are already; None for too few, which is said in a line."""
    config, target = run.config.adaptation, run.workdir / "adaptation" / "frames"
    run.clips.bad.keep_in(run.workdir / "bad_photos.json")
    sharding.first_alone("frames", lambda: near_frames.match(run.clips, target, run.config.data, config.frames))
    index = near_frames.read_index(target, run.clips)
    matched = sorted(number for number, share in index.kept.items() if share >= config.frames.least)
    if len(matched) < FEWEST:
        return left_out.say(run, "adaptation", f"{told(index, matched)}; at least {FEWEST} must")
    if sharding.is_first():
        share = 100 * np.mean([index.kept[number] for number in matched])
        print(f"adaptation: {told(index, matched)}, {share:.0f} % of their pixels")
    names = {name: name for name in ("blurry", "sharp", "kept")}
    own = Supply(near_frames.pairs(run.clips, target, matched, run.config.data), pipeline.Crop, names)
    return Pairs([own, *pairs.known(run, config)], adaptation.matched_pairs(config), {})


def told(index: Index, matched: list[int]) -> str:
    """What was found."""
    return f"of {len(index.sharpness)} frames {len(index.kept)} have a sharper one near by, {len(matched)} match it"


def check(run: Run) -> None:
    """UserError when the settings or the videos cannot give pairs; nothing is matched."""
    settings = run.config.adaptation.frames
    extras.need("cv2", extras.FRAMES)
    if settings.near < 1 or settings.sharper < 1 or settings.agreement <= 0 or settings.limit < 0:
        found = ", ".join(f"{key}={settings[key]}" for key in ("near", "sharper", "agreement", "limit"))
        raise UserError(f"adaptation.frames has {found}; wants near, sharper >= 1, agreement > 0, limit >= 0")
    if not 0 < settings.least <= 1:
        raise UserError(f"adaptation.frames.least is {settings.least}; it must be above 0 and at most 1")
    if len({frame.scene for frame in run.clips.photos}) == len(run.clips.photos):
        folder = settings.folder or run.config.data.unknown_blur
        raise UserError(
            f"adaptation.frames.folder is {folder}: no two frames in it are of one video; give videos, or a sub-folder "
            "of numbered frames for each"
        )
    frames, smallest = Photos([frame.blurry for frame in run.clips.photos]), run.config.adaptation.crop
    check_sizes(domains.training(run.config.data, frames), smallest, "adaptation.crop")
    refuse_others(run)


def refuse_others(run: Run) -> None:
    """UserError when the run began its adaptation on other frames than there are now."""
    folder = run.workdir / "adaptation"
    if (folder / "checkpoints").exists() and near_frames.read_index(folder / "frames", run.clips) is None:
        if near_frames.is_older(folder / "frames"):
            raise UserError(
                f"{run.workdir} matched its frames with an older version; finish it with that version, or choose "
                "another --workdir"
            )
        raise UserError(
            f"{run.workdir} began its adaptation on other frames than there are now in adaptation.frames.folder; put "
            "those back, or choose another --workdir"
        )
