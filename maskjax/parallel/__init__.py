"""Devices, meshes, shardings, FLOP counting; imports only what lies below."""
