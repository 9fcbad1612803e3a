"""Clusters to entropy to weight. Numpy only."""
