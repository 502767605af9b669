"""Teaching: tasks, encoders and the training loop (PyTorch)."""
