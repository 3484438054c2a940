"""Weights out of here and into here: a durable bundle, and the formats of other libraries."""

from pipeline.export.formats import FORMATS, IMPORTS, bring_in, send_out

__all__ = ["FORMATS", "IMPORTS", "bring_in", "send_out"]
