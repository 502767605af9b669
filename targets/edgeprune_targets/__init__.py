"""Runtimes and devices that come with edgeprune, found by entry point."""
