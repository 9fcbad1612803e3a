"""Text to verdict and cluster: extraction, typed keys, conventions towards the gold, bounded evaluation."""
