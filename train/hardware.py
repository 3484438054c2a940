"""What is known of a device kind: its speeds, and what a run on it starts from.

Speeds are of one chip and dense (NVIDIA's sheets give twice as much "with sparsity"). Of an
interconnect it is what a chip can send at once over all its links: half of what both vendors call
bidirectional.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Hardware:
    """A device kind; None where a number is not known, and `note` then says why.

    `fsdp` is over how many chips parameters are cut as a rule, `node` how many chips share a node
    that only the slow network leaves (0: none). `remat` is a name of `layers.block.REMATS`,
    `attention` one of `layers.kernels.KERNELS`, `unroll` whether layers are compiled one after
    another instead of as a loop, `microbatch` the rows that a chip takes at once in a large model
    (0: the whole batch). A config has the two that say what is kept and taken at once
    with `model.remat` "auto" and `loop.microbatches` 0.
    """

    name: str
    peak_flops_per_s: float | None
    hbm_bytes: float | None
    hbm_bytes_per_s: float | None
    ici_bytes_per_s: float | None
    dcn_bytes_per_s: float | None
    fsdp: int = 1
    node: int = 0
    remat: str = "none"
    attention: str = "xla"
    unroll: bool = False
    microbatch: int = 0
    note: str = ""

    def mesh(self, num_devices: int, num_slices: int = 1) -> dict[str, int]:
        """The usual axes for so many devices: `fsdp` as far as it goes within a slice, copies over
        the rest."""
        fsdp = math.gcd(num_devices // num_slices, self.fsdp)
        return {"data": num_devices // fsdp, "fsdp": fsdp}

    def microbatches(self, num_rows: int) -> int:
        """The fewest equal parts of a chip's rows that are no larger than `microbatch`."""
        most = self.microbatch or num_rows
        return next(n for n in range(1, num_rows + 1) if not num_rows % n and num_rows // n <= most)


TPU_FSDP = 64
"""Not all of a slice: where an axis covers the whole torus of a v5p, XLA makes every gather and
scatter an all-reduce, of twice the bytes (LOG.md)."""


def _tpu(name: str, tflops: float, hbm_gib: float, gb_per_s: float, net: tuple) -> Hardware:
    ici, dcn = net
    return Hardware(
        f"TPU {name}", tflops * 1e12, hbm_gib * GIB, gb_per_s * 1e9, ici * 1e9,
        None if dcn is None else dcn * 1e9 / 8, fsdp=TPU_FSDP, remat="dots", attention="splash",
        microbatch=8,
    )  # fmt: skip


def _gpu(name: str, tflops: float, hbm_gb: float, gb_per_s: float, net: tuple) -> Hardware:
    nvlink, nic = net
    return Hardware(
        f"NVIDIA {name}", tflops * 1e12, hbm_gb * 1e9, gb_per_s * 1e9, nvlink * 1e9,
        nic * 1e9 / 8, fsdp=8, node=8, remat="dots", attention="cudnn", unroll=True, microbatch=8,
    )  # fmt: skip


# TFLOP/s in bf16, HBM (TPUs in GiB, GPUs in GB), its GB/s, then (interconnect GB/s one way, network
# Gbit/s a chip).
PRESETS: Mapping[str, Hardware] = {
    # cloud.google.com/tpu/docs/v4: 275 TFLOPs, 32 GiB, 1200 GBps; 6 links of 50 GB/s (Jouppi et al.
    # 2023, arXiv 2304.01433, table 4). Google gives no network rate for it.
    "v4": _tpu("v4", 275, 32, 1200, (300, None)),
    # cloud.google.com/tpu/docs/v5e: 197 TFLOPs, 16 GB, 819 GBps, ICI 400 GBps bidirectional, 6.4
    # Tbps for a pod of 256.
    "v5e": _tpu("v5e", 197, 16, 819, (200, 25)),
    # cloud.google.com/tpu/docs/v5p: 459 TFLOPs, 95 GiB, 2765 GBps, ICI 1200 GBps bidirectional, DCN
    # 50 Gbps a chip.
    "v5p": _tpu("v5p", 459, 95, 2765, (600, 50)),
    # cloud.google.com/tpu/docs/v6e: 918 TFLOPs, 32 GB, 1638 GBps, ICI 800 GBps bidirectional, four
    # NICs of 200 Gbps for a host of 8 chips.
    "v6e": _tpu("v6e", 918, 32, 1638, (400, 100)),
    # NVIDIA A100 data sheet (2021): 312 TFLOPS, 80 GB, 2039 GB/s, NVLink 600 GB/s; DGX A100: eight
    # NICs of 200 Gb/s.
    "a100": _gpu("A100 SXM 80GB", 312, 80, 2039, (300, 200)),
    "a100-40gb": _gpu("A100 SXM 40GB", 312, 40, 1555, (300, 200)),  # the same sheet
    # NVIDIA H100 data sheet: 1979 TFLOPS with sparsity, 80 GB, 3.35 TB/s, NVLink 900 GB/s; DGX
    # H100: eight NICs of 400 Gb/s.
    "h100": _gpu("H100 SXM", 989.4, 80, 3350, (450, 400)),
    # the same sheet: 1513 TFLOPS with sparsity, 2 TB/s, NVLink bridge 600 GB/s
    "h100-pcie": _gpu("H100 PCIe", 756, 80, 2000, (300, 400)),
    # NVIDIA H200 data sheet: as H100 SXM with 141 GB and 4.8 TB/s.
    "h200": _gpu("H200 SXM", 989.4, 141, 4800, (450, 400)),
    # NVIDIA HGX B200 data sheet: 36 PFLOPS with sparsity for eight, 180 GB, 8 TB/s, NVLink 1.8
    # TB/s; DGX B200: eight NICs of 400 Gb/s.
    "b200": _gpu("B200 SXM", 2250, 180, 8000, (900, 400)),
    "cpu": Hardware(
        "CPU", None, None, None, None, None,
        note="the peak of a CPU is not known here, so there is no MFU: give "
        "hardware.peak_flops_per_s to have one",
    ),
}  # fmt: skip

# What `jax.Device.device_kind` says, in small letters.
_KINDS: Mapping[str, str] = {
    "tpu v4": "v4", "tpu v5 lite": "v5e", "tpu v5e": "v5e", "tpu v5": "v5p", "tpu v5p": "v5p",
    "tpu v6 lite": "v6e", "tpu v6e": "v6e",
    "nvidia a100-sxm4-80gb": "a100", "nvidia a100-sxm4-40gb": "a100-40gb",
    "nvidia h100 80gb hbm3": "h100", "nvidia h100 pcie": "h100-pcie",
    "nvidia h200": "h200", "nvidia b200": "b200",
}  # fmt: skip


def preset(device_kind: str, changes: Mapping[str, Any] | None = None) -> Hardware:
    """What is known of `jax.devices()[0].device_kind` (or of a short name: v5e, h100), with what a
    config says otherwise.

    An unknown kind has no speeds, and a note that says how to give them. Raises `ValueError` for a
    change of what a device does not have.
    """
    key = device_kind.lower()
    key = _KINDS.get(key, key)
    found = PRESETS.get(key)
    if found is None:
        note = (
            f"{device_kind} is not among the known devices ({', '.join(PRESETS)}), so there is no "
            "MFU: give hardware.peak_flops_per_s to have one"
        )
        found = Hardware(device_kind, None, None, None, None, None, attention="auto", note=note)
    fields = [field.name for field in dataclasses.fields(Hardware)]
    for name in changes or {}:
        if name not in fields:
            raise ValueError(f"hardware has no {name!r}; there is: {', '.join(fields)}")
    return dataclasses.replace(found, **(changes or {}))
