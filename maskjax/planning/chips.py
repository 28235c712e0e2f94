"""What the makers say about accelerators, and what their compilers say.

Sources. Peaks: `parallel/devices.py`. TPU memory bandwidth and interconnect: Google Cloud's pages
"TPU v4", "TPU v5e", "TPU v5p", "TPU v6e", "TPU7x (Ironwood)"; v3 and the speeds of single links:
the JAX scaling book, "How to Think About TPUs". TPU memory: what libtpu 0.0.42.1 leaves to a
program, from the message of one that does not fit. GPUs: NVIDIA's data sheets of the SXM forms, and
of DGX A100, DGX H100 and DGX H200 for the networks of nodes (a card of 200 or 400 Gb/s per GPU).
GPU memory: what CUDA shows of it, a little less than the driver does.
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A generation of accelerators. Figures are per chip; a chip may show two devices.

    TPUs lie in a torus. GPUs hang at the switch of their node, and nodes at a network.

    Attributes:
      name: as in `--topology`.
      kind: `device_kind` of its devices.
      devices: JAX devices of a chip.
      capacity: bytes that a program may use, per device.
      bandwidth: of the memory, bytes/s.
      link: of one link of the interconnect, one way, bytes/s.
      axes: of the torus; 0: a switch, of which `link` is the share of one chip.
      largest: most chips along each axis, in ascending order; of GPUs: that are planned for.
      wraps: from which length on an axis of the torus is closed.
      clock: cycles/s of the matrix units; None: the compiler estimates no cycles.
      options: for libtpu.
      node: GPUs of a node.
      network: share of one GPU in the network between nodes, one way, bytes/s.
    """

    name: str
    kind: str
    devices: int
    capacity: float
    bandwidth: float
    link: float
    axes: int
    largest: tuple[int, ...]
    wraps: int
    clock: float | None
    options: tuple[tuple[str, str], ...] = ()
    node: int = 0
    network: float = 0.0

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU; else it is a TPU."""
        return not self.axes

    @property
    def unit(self) -> str:
        """What one of them is called."""
        return "GPU" if self.is_gpu else "chip"


# Clocks are peak / (2 x 128 x 128 x matrix units). Those of v6e and TPU7x are calibrated instead,
# by a matrix product of known FLOPs, and nothing has confirmed them yet.
# The link of TPU7x is a twelfth of the 1,200 GB/s, both ways, of a chip with six links.
TPUS = (
    Chip("v3", "TPU v3", 2, 15.48 * GIB, 900e9, 100e9, 2, (32, 32), 32, 0.94e9),
    Chip(
        *("v4", "TPU v4", 1, 30.75 * GIB, 1200e9, 45e9, 3, (16, 16, 16), 4, 1.05e9),
        options=(("chip_config_name", "megacore"),),
    ),
    Chip("v5e", "TPU v5 lite", 1, 15.75 * GIB, 819e9, 45e9, 2, (16, 16), 16, 1.50e9),
    Chip("v5p", "TPU v5", 1, 95.74 * GIB, 2765e9, 90e9, 3, (16, 20, 28), 4, 1.75e9),
    Chip("v6e", "TPU v6 lite", 1, 31.25 * GIB, 1638e9, 90e9, 2, (16, 16), 16, 2.24e9),
    Chip("tpu7x", "TPU7x", 2, 94.75 * GIB, 7380e9, 100e9, 3, (16, 24, 24), 4, 2.46e9),
)
UNPROVEN_CLOCKS = ("v6e", "tpu7x")


def _gpu(
    name: str, kind: str, capacity: float, bandwidth: float, link: float, network: float
) -> Chip:
    return Chip(
        *(name, kind, 1, capacity * GIB, bandwidth, link, 0, (4096,), 0, None),
        node=8,
        network=network,
    )


GPUS = (
    _gpu("a100-40gb", "NVIDIA A100-SXM4-40GB", 39.4, 1555e9, 300e9, 25e9),
    _gpu("a100-80gb", "NVIDIA A100-SXM4-80GB", 79.2, 2039e9, 300e9, 25e9),
    _gpu("h100", "NVIDIA H100 80GB HBM3", 79.1, 3350e9, 450e9, 50e9),
    _gpu("h200", "NVIDIA H200", 139.8, 4800e9, 450e9, 50e9),
)


def find(name: str) -> Chip | None:
    """Returns the generation of a name, in any case, or None."""
    return next((chip for chip in TPUS + GPUS if chip.name == name.lower()), None)
