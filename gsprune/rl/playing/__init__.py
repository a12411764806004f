"""Plays episodes with trained agents and shows them side by side with captions, in a window or a video file."""
