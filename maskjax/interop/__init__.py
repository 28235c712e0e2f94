"""Artefacts that live without maskjax."""

from maskjax.interop.artefact import export_encoder

__all__ = ["export_encoder"]
