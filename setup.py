"""Packaging. The pinned versions are known to work together: raise them together, then run `make test`."""

from setuptools import find_packages, setup

setup(
    name="east",
    version="0.1.0",
    description="Entropy-based adaptive weighting for self-training (arXiv 2503.23913)",
    packages=find_packages(include=["east", "east.*"]),
    package_data={"east.report": ["page_parts/*"]},
    python_requires=">=3.11",
    install_requires=[
        "torch==2.13.0",
        "deepspeed==0.19.8",
        "transformers==5.19.0",
        "peft==0.21.2",
        "math-verify==0.9.0",
        "matplotlib==3.11.2",
        "mpmath==1.3.0",
        "numpy==2.4.6",
        "datasets==5.2.0",
        "protobuf>=5.29.6",  # what transformers reads sentencepiece models with
        "pydantic==2.14.3",
        "pyyaml==6.0.3",
        "sentencepiece==0.2.3",
        "tqdm==4.70.1",
    ],
    extras_require={
        "vllm": ["vllm==0.32.0"],  # on GPUs; `make env` installs its CPU build
        "test": [
            "hypothesis==6.170.15",
            "mypy==2.4.1",
            "pytest==9.2.0",
            "pytest-timeout==2.4.0",
            "pytest-xdist==3.8.0",
            "ruff==0.17.5",
            "selenium==4.51.0",
            "statsmodels==0.15.0",
            "tensorboard==2.21.0",
            "wandb==0.31.0",
            "trl==1.16.0",
            "types-PyYAML",
            "types-tqdm",
        ],
    },
    entry_points={"console_scripts": ["east=east.__main__:main"]},
)
