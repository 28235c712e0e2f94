"""Artefacts that live without maskjax."""

from maskjax.interop.artefact import export_run

__all__ = ["export_run"]
