"""Tables and pictures of one or many runs."""
