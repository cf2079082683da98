"""The launch files: they parse, agree with the command's flags and with themselves. No cluster is at hand."""

import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from b2b_jax import commandline

LAUNCH = Path(__file__).parents[1] / "tools" / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses_and_refuses_to_start_without_its_arguments(path):
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    run = subprocess.run(["bash", str(path)], capture_output=True, text=True, check=False)
    assert run.returncode != 0 and f"usage: {'sbatch ' * (path.stem == 'slurm')}tools/launch/{path.name}" in run.stderr
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", str(path)], check=False).returncode == 0


@pytest.mark.parametrize("path", [*SCRIPTS, LAUNCH / "jobset.yaml"], ids=lambda path: path.name)
def test_every_flag_of_the_command_exists(path):
    first, *rest = path.read_text().partition("python")[2].partition("b2b_jax.main")[2].splitlines()
    lines = [first, *itertools.takewhile(lambda line: line.strip().startswith("--"), rest)]
    flags = {name.split(".")[0] for name in re.findall(r"--([\w.]+)", "".join(lines))}
    assert {"config", "workdir"} <= flags and all(name in commandline.flags.FLAGS for name in flags)


def test_a_step_of_slurm_asks_for_the_processors_of_its_tasks():
    text = (LAUNCH / "slurm.sh").read_text()
    assert "#SBATCH --cpus-per-task=" in text  # which steps do not inherit since Slurm 22.05
    assert re.search(r'^srun .*--cpus-per-task="\$SLURM_CPUS_PER_TASK"', text, re.MULTILINE)


def test_the_job_set_starts_as_many_processes_as_it_says_and_names_the_first():
    jobs = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())
    (job,) = jobs["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    (command,) = container["args"]
    assert spec["completionMode"] == "Indexed" and f"--num_processes={spec['parallelism']} " in command
    assert spec["completions"] == spec["parallelism"]
    name = jobs["metadata"]["name"]
    assert f"--coordinator={name}-{job['name']}-0-0.{name}:" in command  # JobSet's names of pods and of their service
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
