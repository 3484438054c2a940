"""Weights on their way out and in: safetensors one tensor at a time, name tables between our arrays
and another library's, and the proof that both compute the same."""

from train.export.parity import Parity
from train.export.table import ExportError, Row, Table
from train.export.tensors import FormatError, Stored, Writer, open_tensors

__all__ = [
    "ExportError", "FormatError", "Parity", "Row", "Stored", "Table", "Writer", "open_tensors",
]  # fmt: skip
