"""The `edgeprune` command."""
