"""From graded responses to training examples, and their tokens on disk."""
