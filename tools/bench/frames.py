"""What sharp frames near blurry ones are worth: the demo's deblurrer, adapted to generated clips by each teacher.

    python -m tools.bench.frames --deblurrer runs/demo/deblurrer/weights.safetensors --output runs/frames

A clip is a camera that pans slowly and unsteadily over a large still scene, in front of which one thing moves, with
noise. Half of its frames, chosen at random, are blurred as by the demo's camera. The deblurrer is adapted in --steps of
8 crops of 48 px, the demo's recipe, on pairs of

frames     the clips' blurry frames and what matching finds of them near by (adaptation.teacher=frames)
camera     the sharp frames under the camera that is learnt from them and the blurry ones (the demo's recipe)
truth      the blurry frames and their truth, which no real camera has: the upper bound

and scored on blurry frames of other clips. Rows that are finished are not trained again.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from b2b_jax import commandline, extras, images, levels, metrics, networks
from b2b_jax.compilation import enable_compilation_cache
from b2b_jax.data import blur, dead_leaves, near_frames, pipeline
from b2b_jax.data.sources import ArraySource
from b2b_jax.files import write_json
from b2b_jax.inference import batching
from b2b_jax.method import adaptation
from b2b_jax.method.known_blur import Supply
from b2b_jax.stages import adaptation as stage
from b2b_jax.stages import camera, pairs
from b2b_jax.stages.pairs import Pairs
from b2b_jax.stages.run import Run
from configs import demo

SIZE, MARGIN, FRAMES = 160, 60, 10  # pixels a side, pixels of the scene around the first view, frames of a clip
THING = 40  # pixels a side of what moves
NOISE = 2 / 255
TRAINING, TEST = range(32), range(100, 124)  # seeds of the clips
SCENES = 7000  # seed of their scenes, and of the things the next


class Clip(NamedTuple):
    """Frames uint8 (n, h, w, 3)."""

    frames: np.ndarray
    truth: np.ndarray
    blurry: np.ndarray  # bool (n,)


def clip(seed: int, kernel: Mapping) -> Clip:
    """A generated clip; `kernel` is of the section data.scenes."""
    rng = np.random.default_rng([SCENES, seed])
    scene = levels.to_float(dead_leaves.scene(SCENES, seed, SIZE + 2 * MARGIN))
    thing = levels.to_float(dead_leaves.scene(SCENES + 1, seed, THING))
    speed, angle = rng.uniform(0.5, 2.5), rng.uniform(0, 2 * np.pi)
    pan, its_own = speed * np.array([np.cos(angle), np.sin(angle)]), rng.uniform(-3, 3, 2)
    place, blurry = rng.uniform(30, SIZE - 30 - THING, 2), rng.random(FRAMES) < 0.5
    truth, frames = [], []
    for i in range(FRAMES):
        view = shown(scene, -MARGIN - pan * (i - FRAMES / 2) - rng.normal(0, 0.3, 2), cubic=True)
        over = shown(np.ones_like(thing), place + its_own * i)
        sharp = np.clip(view * (1 - over) + shown(thing, place + its_own * i) * over, 0, 1)
        taken = blur.apply(sharp, blur.draw(rng, dict(kernel))) if blurry[i] else sharp
        truth.append(levels.to_uint8(sharp))
        frames.append(levels.to_uint8(taken + rng.normal(0, NOISE, taken.shape)))
    return Clip(np.stack(frames), np.stack(truth), blurry)


def shown(picture: np.ndarray, at: np.ndarray, cubic: bool = False) -> np.ndarray:
    """A frame in which the picture's corner lies at x, y, and nothing around it."""
    import cv2  # an optional extra

    mode = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    return cv2.warpAffine(picture, np.float32([[1, 0, at[0]], [0, 1, at[1]]]), (SIZE, SIZE), flags=mode)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = parser().parse_args(arguments)
    return commandline.outcome(lambda: compare(options))


def compare(options: argparse.Namespace) -> None:
    """Trains what is not trained yet and prints the tables."""
    extras.need("cv2", extras.FRAMES)
    enable_compilation_cache()
    kernel = demo.get_config().data.scenes.unknown_kernel.to_dict()
    training, test = ([clip(seed, kernel) for seed in part] for part in (TRAINING, TEST))
    write(training, options.output)
    blurry, truth = (np.concatenate([getattr(c, key)[c.blurry][:2] for c in test]) for key in ("frames", "truth"))
    for seed in options.seeds:
        psnr = {"blurry frame": score(levels.to_float(blurry), truth)}
        for name in ("deblurrer alone", *options.rows):
            run = Run(settings(options, seed), options.output / f"{name.split()[-1]}-{seed}")
            network = run.network("deblurrer") if name == "deblurrer alone" else adapted(run, name, training)
            restore = networks.runner(network)
            psnr[name] = score(batching.run(restore, levels.to_float(blurry), 8), truth)
        write_json(options.output / f"psnr-{seed}.json", {name: values.tolist() for name, values in psnr.items()})
        print_table(seed, psnr)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deblurrer", type=Path, required=True, help="its weights")
    parser.add_argument("--output", type=Path, required=True, help="folder of the clips and runs")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder that keeps generated scenes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings; default: 0")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), help="default: all")
    parser.add_argument("--steps", type=int, default=1000, help="of the adaptation; default: 1000")
    return parser


def write(clips: list[Clip], output: Path) -> None:
    """Writes the clips, and the two piles that a camera is learnt from, as folders of PNG files."""
    for number, one in enumerate(clips):
        for i, frame in enumerate(one.frames):
            for folder in ("clips", "unknown_blur" if one.blurry[i] else "unknown_sharp"):
                path = output / folder / f"{number:03d}" / f"{i:02d}.png"
                if not path.exists():
                    images.write(path, frame)


def settings(options: argparse.Namespace, seed: int) -> ConfigDict:
    """The demo's configuration with the clips as its camera."""
    config = demo.get_config()
    config.seed = seed
    config.data.update(root=str(options.data), unknown="")
    config.data.update({key: str(options.output / key) for key in ("unknown_blur", "unknown_sharp")})
    config.deblurrer.weights = str(options.deblurrer)
    config.adaptation.steps = options.steps
    config.adaptation.frames.folder = str(options.output / "clips")
    config.loop.update(log_every=100, evaluate_every=500, checkpoint_every=500)
    return config


# ------------------------------------------------------------------------------------------------------------- the rows


def by_frames(run: Run, clips: list[Clip]) -> None:
    """Adapts to matched frames, and says how good the matches are."""
    run.config.adaptation.teacher = "frames"
    stage.fit(run, lambda: None)
    target, index = (
        run.workdir / "adaptation/frames",
        near_frames.read_index(run.workdir / "adaptation/frames", run.clips),
    )
    errors = {"kept": [], "all": []}
    for number, share in index.kept.items():
        one, i = clips[number // FRAMES], number % FRAMES
        if share >= run.config.adaptation.frames.least and one.blurry[i]:
            record = near_frames.pairs(run.clips, target, [number], run.config.data)[0]
            wrong = np.square(levels.to_float(record["sharp"]) - levels.to_float(one.truth[i])).mean(-1)
            errors["all"].append(wrong.ravel())
            errors["kept"].append(wrong[record["kept"][..., 0] > 0])
    kept, everywhere = (-10 * np.log10(np.mean(np.concatenate(errors[key]))) for key in ("kept", "all"))
    found = f"{len(errors['all'])} of {sum(one.blurry.sum() for one in clips)} blurry frames"
    print(f"matches: {found}; {kept:.1f} dB from the truth where kept, {everywhere:.1f} dB everywhere")


def by_camera(run: Run, clips: list[Clip]) -> None:
    """Learns the camera, then adapts to it."""
    if not run.trained("camera"):
        camera.fit(run, lambda: None)
    stage.fit(run, lambda: None)


def by_truth(run: Run, clips: list[Clip]) -> None:
    """Adapts to the true pairs."""
    arrays = {
        "blurry": np.concatenate([one.frames[one.blurry] for one in clips]),
        "sharp": np.concatenate([one.truth[one.blurry] for one in clips]),
    }
    source = ArraySource("truth", **arrays, kept=np.full_like(arrays["sharp"], 255))
    own = Supply(source, pipeline.Crop, {name: name for name in ("blurry", "sharp", "kept")})
    config = run.config.adaptation
    stage.fit_pairs(run, Pairs([own, *pairs.known(run, config)], adaptation.matched_pairs(config), {}), lambda: None)


ROWS: Mapping[str, Callable[[Run, list[Clip]], None]] = {"frames": by_frames, "truth": by_truth, "camera": by_camera}


def adapted(run: Run, name: str, clips: list[Clip]) -> networks.Network:
    """The deblurrer of a row, trained unless it is already."""
    if not run.trained("adaptation"):
        ROWS[name](run, clips)
    return run.network("adaptation")


def score(x: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """PSNR of every photo, rounded to 8 bits."""
    return np.asarray(metrics.psnr(metrics.round8(x), levels.to_float(truth)))


def print_table(seed: int, psnr: Mapping[str, np.ndarray]) -> None:
    """Means ± standard errors over the photos, and the gains over the deblurrer alone, photo by photo."""
    print(f"\n| seed {seed}, {len(psnr['deblurrer alone'])} blurry frames | PSNR | gain |\n|---|---|---|")
    for name, values in psnr.items():
        print(f"| {name} | {told(values)} | {told(values - psnr['deblurrer alone'], '+')} |")


def told(values: np.ndarray, sign: str = "") -> str:
    """Mean ± standard error."""
    return f"{values.mean():{sign}.2f} ± {values.std(ddof=1) / np.sqrt(len(values)):.2f}"


if __name__ == "__main__":
    sys.exit(main())
