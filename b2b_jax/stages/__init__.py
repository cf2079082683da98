"""The trained networks of a run, one file each, in the order in which they are trained."""

from collections.abc import Mapping

from b2b_jax.stages import (
    adaptation,
    blur2blur_pairs,
    blur_extractor,
    camera,
    converter,
    cycle,
    deblurrer,
    denoiser,
    kernel_field,
    paired,
    translator,
    true_kernels,
)
from b2b_jax.stages.run import Run
from b2b_jax.stages.stage import Stage, asked

STAGES: Mapping[str, Stage] = {
    "deblurrer": deblurrer.STAGE,
    "blur_extractor": blur_extractor.STAGE,
    "camera": camera.STAGE,
    "denoiser": denoiser.STAGE,
    "kernel_field": kernel_field.STAGE,  # before the adaptation, whose result is held to the photo with it
    "adaptation": adaptation.STAGE,
    "translator": translator.STAGE,
    "cycle": cycle.STAGE,
    "blur2blur_pairs": blur2blur_pairs.STAGE,
    "paired": paired.STAGE,
    "true_kernels": true_kernels.STAGE,
    "converter": converter.STAGE,
}
SECTIONS = tuple(stage.section for stage in STAGES.values() if stage.section)


def trained_here(run: Run) -> dict[str, int]:
    """The stages that `config.stages` asks for, or an earlier start began, in order, and their steps.

    Not those that nothing in the run uses, nor those whose weights are given.
    """
    names = asked(run.config)
    begun = [name for name, stage in STAGES.items() if (stage.serves or name) in names or (run.workdir / name).is_dir()]
    wanted = {name: STAGES[name] for name in begun if STAGES[name].needed(run)}
    return {name: stage.steps(run.config) for name, stage in wanted.items() if not stage.given(run)}
