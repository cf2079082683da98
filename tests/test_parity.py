"""The networks and operators equal those of the PyTorch originals; the comparisons stand in parity.py."""

import json

import jax
import pytest
from helpers import assert_close, reference
from helpers.parity import NETWORKS, OPS, golden, operator

# Compared elsewhere: the rounding of photos (test_images).
ELSEWHERE = {"float_to_uint8"}


@pytest.fixture(autouse=True)
def full_precision():
    with jax.default_matmul_precision("float32"):
        yield


@pytest.mark.parametrize("fixture", NETWORKS)
def test_network_equals_pytorch(fixture):
    for _, got, wanted in NETWORKS[fixture](fixture):
        assert_close(got, wanted)


@pytest.mark.parametrize("name", OPS)
def test_operator_equals_pytorch(name):
    for _, got, wanted in operator(name):
        assert_close(got, wanted, tol=1e-5)


def test_every_operator_of_the_reference_data_is_compared():
    assert {name.split("__")[0] for name in golden("ops/ops")} == OPS.keys() | ELSEWHERE


def test_every_network_of_the_reference_data_is_compared():
    fixtures = json.loads(reference("index.json").read_text())["fixtures"]
    others = {"b2b_step", "ops", "schedule", "metrics", "data", "manifests", "traces"}
    assert {name for name in fixtures if name.split("/")[0] not in others} == NETWORKS.keys()
