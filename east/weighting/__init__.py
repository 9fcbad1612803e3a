"""From cluster sizes to entropy, and from entropy to the weights of examples. Numpy only."""
