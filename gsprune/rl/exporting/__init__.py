"""From a run to a policy file that a device runs."""
