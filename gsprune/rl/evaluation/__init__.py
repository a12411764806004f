"""Evaluates and compares agents."""
