from __future__ import annotations

import pytest

from napari_attention_unet.bench import exact
from napari_attention_unet.bench.exact import NETWORKS, bundled_steps, deviation
from napari_attention_unet.bench.how import How
from napari_attention_unet.bench.networks import network
from napari_attention_unet.graph.lower import finished


@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_gives_its_gates(name):
    """Run whole: the networks are sound, and the measure sees no more than rounding."""
    found = deviation(NETWORKS[name](), (32, 32, 32), "whole")
    assert found["gates"]
    assert 0 < found["logits"] < 1e-4
    assert max(found["gates"].values()) < 1e-4


def test_a_wrong_result_is_seen(monkeypatch):
    right = exact.predict

    def wrong(*arguments, **options):
        made = right(*arguments, **options)
        made.gates[0].coefficients[0, 0, 0] += 0.25
        return made

    monkeypatch.setattr(exact, "predict", wrong)
    found = deviation(network("blog2"), (32, 32, 32), "whole")
    assert found["gates"]["att4"] > 0.2
    assert found["gates"]["att1"] < 1e-5


def test_the_bundled_model_on_its_sample():
    mask, gates = finished(bundled_steps(How()))
    assert mask.reached >= 99
    assert 0 <= gates.reached < 0.1
    assert max(gates.details.values()) == gates.reached
