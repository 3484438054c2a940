"""Meshes over one machine and over several: which device lies where, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from layers.axes import ALPHABET
from train import mesh as meshes
from train.hardware import PRESETS, preset


@dataclasses.dataclass(frozen=True)
class Device:
    """What `mesh_utils` asks of a device."""

    id: int
    process_index: int
    slice_index: int | None = None
    platform: str = "cpu"
    device_kind: str = "cpu"


def sliced(num_slices, each, **fields):
    """Devices that come interleaved, as nothing promises their order."""
    total = num_slices * each
    return [Device(i, i % num_slices, i % num_slices, **fields) for i in range(total)]


def test_axes_come_in_their_order_however_they_are_named():
    mesh = meshes.build({"tensor": 2, "data": -1, "fsdp": 2})
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert list(mesh.devices.flat) == jax.devices()
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}
    assert dict(meshes.build({"fsdp": 8}).shape) == {"fsdp": 8}


@pytest.mark.parametrize("dcn", [{"data": 2}, {"data": -1}, {"fsdp": 2}], ids=str)
def test_only_the_outer_axis_crosses_slices(dcn):
    devices = sliced(2, 8)
    sizes = {"data": 4, "fsdp": 2, "tensor": 2}
    grid = meshes.lay_out(sizes, devices, dcn)
    assert grid.shape == (4, 2, 2) and {d.id for d in grid.flat} == set(range(16))
    slices = np.vectorize(lambda d: d.slice_index)(grid)
    crossed = next(iter(dcn))
    for axis, name in enumerate(sizes):
        halves = np.split(slices, 2, axis=axis)
        along = [len(set(line)) for line in np.moveaxis(slices, axis, -1).reshape(-1, sizes[name])]
        if name == crossed:
            assert all(n == 2 for n in along)
            assert all(len(set(half.flat)) == 1 for half in halves)  # as few crossings as can be
        else:
            assert all(n == 1 for n in along)


def test_processes_are_the_slices_of_devices_that_know_of_none():
    devices = [Device(i, i // 4) for i in range(8)]
    grid = meshes.lay_out({"data": 2, "fsdp": 4}, devices, {"data": 2})
    assert [[d.process_index for d in row] for row in grid] == [[0] * 4, [1] * 4]


@pytest.mark.parametrize(
    ("sizes", "dcn", "message"),
    [
        ({"data": 16}, {"data": 4}, "dcn_mesh {'data': 4} needs 4 slices and there are 2; change"),
        ({"data": 16}, {"fsdp": 2}, "mesh axis fsdp of size 1 is not a multiple of the 2 parts"),
        ({"data": 16}, {"rows": 2}, "dcn_mesh axis 'rows' is not known; there is: data, fsdp"),
    ],
)
def test_what_slices_cannot_carry_is_named(sizes, dcn, message):
    with pytest.raises(ValueError, match=message):
        meshes.lay_out(sizes, sliced(2, 8), dcn)


def test_slices_of_tpus_must_be_given_an_axis():
    with pytest.raises(ValueError, match=r"in 2 slices; say .*config.loop.dcn_mesh=\{'data': 2\}"):
        meshes.lay_out({"data": 16}, sliced(2, 8, platform="tpu", device_kind="TPU v5 lite"), {})
    with pytest.raises(ValueError, match="mesh axis 'expert' is not known; there is: data, fsdp"):
        meshes.build({"expert": 8})


def test_the_rules_speak_of_axes_and_letters_that_exist():
    assert set(meshes.RULES) <= set(ALPHABET)
    for axes in meshes.RULES.values():
        assert set((axes,) if isinstance(axes, str) else axes) <= set(meshes.AXES)


def test_a_kind_is_known_by_its_own_name_and_by_ours():
    for kind, short in (("TPU v5 lite", "v5e"), ("TPU v5", "v5p"), ("TPU v6 lite", "v6e"),
                        ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H200", "h200")):  # fmt: skip
        assert preset(kind) == preset(short) == PRESETS[short]
        assert preset(kind).note == ""
    # FLOPs a byte of HBM, where a kernel turns from bound by memory to bound by arithmetic
    ratios = {n: h.peak_flops_per_s / h.hbm_bytes_per_s for n, h in PRESETS.items() if n != "cpu"}
    assert all(130 < ratio < 600 for ratio in ratios.values()), ratios
    for name, known in PRESETS.items():
        if name != "cpu":  # the network is the slowest, memory the fastest
            assert (known.dcn_bytes_per_s or 1) < known.ici_bytes_per_s < known.hbm_bytes_per_s


def test_an_unknown_kind_has_no_peak_and_says_so():
    found = preset("NVIDIA RTX 9090")
    assert found.peak_flops_per_s is None and "NVIDIA RTX 9090 is not among" in found.note
    told = preset("NVIDIA RTX 9090", {"peak_flops_per_s": 1e15, "attention": "cudnn"})
    assert (told.peak_flops_per_s, told.attention) == (1e15, "cudnn")
    assert preset("cpu").peak_flops_per_s is None and "CPU" in preset("cpu").note
    with pytest.raises(ValueError, match="hardware has no 'peak'; there is: name, peak_flops"):
        preset("h100", {"peak": 1})


@pytest.mark.parametrize(
    ("kind", "counts", "axes"),
    [
        ("v5e", (256, 1), {"data": 4, "fsdp": 64}),
        ("v5e", (512, 2), {"data": 8, "fsdp": 64}),
        ("h100", (64, 8), {"data": 8, "fsdp": 8}),
        ("h100", (4, 1), {"data": 1, "fsdp": 4}),
        ("cpu", (8, 1), {"data": 8, "fsdp": 1}),
    ],
)
def test_the_usual_mesh_of_a_kind(kind, counts, axes):
    assert preset(kind).mesh(*counts) == axes
