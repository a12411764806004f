"""Games x methods x seeds in local worker processes, resumable."""
