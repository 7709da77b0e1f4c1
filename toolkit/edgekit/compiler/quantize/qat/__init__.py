"""Quantization-aware training: the rung for networks that post-training quantization hurts.

The float network is traced (`trace.py`), batch normalizations are folded into the convolutions before them (`fold.py`), fake quantizers are placed where
an engine runs in int8 (`place.py`), their ranges are found on calibration frames (`calibrate.py`), and network and ranges are trained to answer as the
float network does (`train.py`). What comes out is one ONNX file with QuantizeLinear/DequantizeLinear pairs (`export.py`) for every engine.
"""
