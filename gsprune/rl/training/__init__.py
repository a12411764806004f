"""The parts of training that all algorithms share: options, run folder, metrics, checkpoints and the loop."""
