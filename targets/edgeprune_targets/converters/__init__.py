"""What makes a runtime's own file of an ONNX file: run apart, importing nothing of ours."""
