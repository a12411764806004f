"""What all algorithms share: options, run folder, metrics, checkpoints, the loop."""
