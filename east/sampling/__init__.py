"""n responses to each question."""
