"""Measuring latency on a target and judging it against a budget; runs without torch."""
