"""The parts of one optimizer step. The only folder that imports DeepSpeed."""
