"""Checks of a run: before it is trained, and that its gradients do not depend on ranks and micro-batches."""
