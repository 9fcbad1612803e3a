"""Packaging. The pinned versions are known to work together: raise them together, then run `make test`."""

from setuptools import find_packages, setup

setup(
    name="east",
    version="0.1.0",
    description="Entropy-based adaptive weighting for self-training (arXiv 2503.23913)",
    license="Apache-2.0",
    # east/commands/train.py, east/commands/sample.py and east/run/ds_configs are links to the top level: a wheel
    # has copies
    packages=find_packages(include=["east", "east.*"]),
    package_data={"east": ["py.typed"], "east.report": ["page_parts/*"], "east.run": ["ds_configs/*.json"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "torch==2.13.0",
        "deepspeed==0.19.8",
        "transformers==5.19.0",
        "peft==0.21.2",
        "datasets==5.2.0",
        "filelock==4.3.1",
        "huggingface_hub==2.4.0",
        "jinja2==3.1.6",
        "math-verify==0.9.0",
        "matplotlib==3.11.2",
        "numpy==2.4.6",
        "protobuf>=5.29.6",  # what transformers reads sentencepiece models with
        "pydantic==2.14.3",
        "python-flint==0.9.0",
        "pyyaml==6.0.3",
        "safetensors==0.8.0",
        "scipy==1.17.1",
        "sentencepiece==0.2.3",
        "statsmodels==0.15.0",
        "tokenizers==0.23.3",
        "tqdm==4.70.1",
    ],
    extras_require={
        "vllm": ["vllm==0.32.0"],  # on GPUs; `make test` installs its CPU build
        "test": [
            "hypothesis==6.170.15",
            "mpmath==1.3.0",
            "mypy==2.4.1",
            "pytest==9.2.0",
            "pytest-timeout==2.4.0",
            "pytest-xdist==3.8.0",
            "ruff==0.17.5",
            "selenium==4.51.0",
            "tensorboard==2.21.0",
            "trl==1.16.0",
            "types-PyYAML",
            "types-tqdm",
            "wandb==0.31.0",
        ],
        "docs": [
            "mkdocs==1.6.1",
            "mkdocs-material==9.8.2",
            "mkdocstrings[python]==1.0.8",
            "mkdocstrings-python==2.0.11",
            "ruff==0.17.5",
        ],
    },
    entry_points={"console_scripts": ["east=east.__main__:main"]},
)
