"""Responses to examples to tokens on disk."""
