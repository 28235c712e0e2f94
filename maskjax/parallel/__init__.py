"""Devices, meshes, shardings, FLOP counting. On the ground: imports nothing else of maskjax but errors."""
