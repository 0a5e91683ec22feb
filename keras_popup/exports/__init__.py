"""Exports models as SavedModel, LiteRT or ONNX, and compares the outputs of the files with those of the model."""

from keras_popup.exports.api import FORMATS, Export, ExportError, export

__all__ = ["FORMATS", "Export", "ExportError", "export"]
