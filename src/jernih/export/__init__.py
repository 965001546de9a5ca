"""A defended model for runtimes other than torch: one ONNX file, and a reader of it."""

from jernih.export.read import OnnxDefended
from jernih.export.write import Exported, export_onnx

__all__ = ["Exported", "OnnxDefended", "export_onnx"]
