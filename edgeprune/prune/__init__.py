"""Pruning: error curves, the plan that a budget buys, and surgery."""
