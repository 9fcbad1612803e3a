"""A final answer in mathematics: from its text to a tree, and to a key that is equal for equal values."""
