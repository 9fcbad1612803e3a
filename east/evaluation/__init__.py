"""Verdicts to accuracies, intervals and tests."""
