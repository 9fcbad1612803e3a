"""EAST: entropy-based adaptive weighting for self-training (arXiv 2503.23913)."""

import logging

# DeepSpeed says on import, on stdout, that a machine without a GPU has none.
logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())

__version__ = "0.1.0"
