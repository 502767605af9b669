"""Compress transformer encoders to a latency budget in milliseconds, and prove that it is met."""

__version__ = "0.1.0"
