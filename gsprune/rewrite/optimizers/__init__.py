"""State that optimizers keep for parameters, sliced along with them."""
