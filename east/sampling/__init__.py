"""Sampling n responses to each question."""
