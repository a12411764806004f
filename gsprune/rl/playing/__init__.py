"""Trained agents at play: frames of their episodes, side by side with captions, in a window or a video file."""
