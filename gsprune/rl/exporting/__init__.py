"""Exports the policy of a run to a file for a device."""
