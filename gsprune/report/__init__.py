"""Tables and plots of one or many runs."""
