"""Several processes that train one network: what they average, and how they make sure to choose alike."""
