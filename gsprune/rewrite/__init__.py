"""Removing channels from everything that holds them: plan, transaction, check."""
