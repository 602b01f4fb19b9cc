"""The `warplca` command."""
