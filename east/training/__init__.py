"""One optimizer step; the only folder that imports DeepSpeed."""
