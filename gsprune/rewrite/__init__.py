"""Rewrites of networks: `network.rewrite_network` makes a network smaller, verifies it, then repairs or refuses."""
