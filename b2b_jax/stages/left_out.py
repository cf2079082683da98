"""Stages that skip themselves: each records the reason in a small file, so that the report does not wait for it.

At the next start such a stage looks again, since what it lacked may have come.
"""

from b2b_jax import sharding
from b2b_jax.files import read_object, write_json
from b2b_jax.stages.run import Run

FILE = "left_out.json"  # in the stage's folder


def say(run: Run, stage: str, reason: str) -> None:
    """Says in a line that the stage is left out, and keeps why."""
    if sharding.is_first():
        print(f"{stage}: left out, {reason}")
    keep(run, stage, reason)


def keep(run: Run, stage: str, reason: str) -> None:
    """Keeps why the stage is left out."""
    if sharding.is_first():
        write_json(run.workdir / stage / FILE, {"reason": reason})


def forget(run: Run, stage: str) -> None:
    """Before the stage looks again."""
    if sharding.is_first():
        (run.workdir / stage / FILE).unlink(missing_ok=True)


def reason(run: Run, stage: str) -> str:
    """Why the stage was last skipped; "" if it was not, or has weights by now."""
    found = read_object(run.workdir / stage / FILE).get("reason", "")
    return "" if run.trained(stage) else str(found)
