"""Explicit quantization of the explained ONNX graph, in the dialects of ONNX Runtime and TensorRT."""
