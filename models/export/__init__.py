"""Exported classifiers: ONNX and PyTorch archives, each checked against PyTorch before it is kept."""
