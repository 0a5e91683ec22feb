"""Exports: models as SavedModel, LiteRT and ONNX, read back by their runtimes and compared."""

from keras_popup.exports.api import FORMATS, Export, ExportError, export

__all__ = ["FORMATS", "Export", "ExportError", "export"]
