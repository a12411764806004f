"""RL algorithms: one folder each, and their registry."""
