"""Sweeps: resumable trainings of games x methods x seeds, in local processes or on a Ray cluster."""
