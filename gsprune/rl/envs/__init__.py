"""Environments: one file per provider, and their registry."""
