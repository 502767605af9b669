"""Export to ONNX and int8, parity checked."""
