"""Baselines for group pruning: structured and unstructured masks, and ReDo. Trainers select one by `pruning`."""
