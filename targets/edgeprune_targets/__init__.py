"""Runtimes and devices that come with edgeprune, found by entry point."""

from pathlib import Path

BENCH = Path(__file__).with_name("bench.py")
SESSIONS = Path(__file__).with_name("sessions")
