"""Devices, meshes, shardings, FLOP counting; imports nothing else of maskjax but errors."""
