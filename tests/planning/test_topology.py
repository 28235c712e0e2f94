"""Names of slices, and what is said about those that do not exist."""

import types

import pytest

from maskjax.errors import UserError
from maskjax.planning import chips, topology
from maskjax.planning.interconnect import bandwidth


@pytest.mark.parametrize(
    ("name", "chips_", "devices"),
    [("v5e:4x4", 16, 1), ("V5E:16x16", 256, 1), ("v6e:1x1", 1, 1), ("v5p:16x20x28", 8960, 1)],
)
def test_slices(name, chips_, devices):
    slice_ = topology.parse(name)
    assert (slice_.num_chips, slice_.chip.devices) == (chips_, devices)
    assert slice_.name == name.lower()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("v5e-16", "write GENERATION:CHIPSxCHIPS.*v3, v4, v5e, v5p, v6e, tpu7x"),
        ("v7x:4x4x4", "There is no topology 'v7x:4x4x4'"),
        ("v5e:4x4x4", "have 2 axes"),
        ("v5p:4x4", "have 3 axes"),
        ("v5e:32x32", "at most 16x16 chips"),
        ("v5e:3x4", "hosts have 2x2 chips"),
        ("v5e:1x4", "hosts have 2x2 chips"),
        ("v5e:0x4", "not possible"),
    ],
)
def test_other_names_are_refused(name, sentence):
    with pytest.raises(UserError, match=sentence):
        topology.parse(name)


def test_without_libtpu(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'maskjax\[plan\]'"):
        topology.prepare_environment(chips.find("v5e"))


def test_chips_that_show_two_devices():
    """A device is half a chip there, and so are its peak, its memory and its share of the links."""
    assert {chip.name for chip in chips.TPUS if chip.devices == 2} == {"v3", "tpu7x"}
    assert dict(chips.find("v4").options) == {"chip_config_name": "megacore"}


def devices(*shape):
    places = [(x, y, 0) for x in range(shape[0]) for y in range(shape[1])]
    return [types.SimpleNamespace(coords=place) for place in places]


def test_bandwidth():
    """Links of the axes along which a group extends, twice where the torus is closed."""
    small = bandwidth(topology.parse("v5e:4x4"), devices(4, 4))
    assert small(range(16)) == 2 * 45e9
    assert small((0, 1, 2, 3)) == 45e9
    large = bandwidth(topology.parse("v5e:16x16"), devices(16, 16))
    assert large(range(256)) == 4 * 45e9
    assert large(range(16)) == 2 * 45e9
    assert small(()) == small(range(16))  # unknown: all
    halves = bandwidth(topology.parse("v3:4x4"), devices(4, 4))
    assert halves(range(16)) == 2 * 100e9 / 2
