#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU slice:  tools/launch/tpu.sh NAME ZONE configs/reds.py /mnt/shared/runs/reds
# The repository lies in ~/b2b_jax on every host (pip install -e '.[tpu]'); photos and WORKDIR on a disk that all mount.
# The hosts find one another by the slice's metadata. The same command goes on after a preemption.
set -euo pipefail

name=${1:?"usage: tools/launch/tpu.sh NAME ZONE CONFIG WORKDIR [--config.KEY=VALUE ...]"}
zone=${2:?"no ZONE"}
config=${3:?"no CONFIG"}
workdir=${4:?"no WORKDIR"}
shift 4

printf -v command '%q ' python3 -m b2b_jax.main --config "$config" --workdir "$workdir" "$@"
gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command "cd ~/b2b_jax && $command"
