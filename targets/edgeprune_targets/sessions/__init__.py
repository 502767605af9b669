"""What runs on a device: one session file for each runtime, importing nothing of ours."""
