"""Bundles: what is shipped to a device."""
