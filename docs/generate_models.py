"""Writes docs/models.md from what the pipeline does with a tiny model of each family (minutes on a CPU).

PYTHONPATH=. python docs/generate_models.py
"""

import tempfile
from pathlib import Path

import transformers

from east.toy import tiny_model
from tests import conftest, matrix, model_families

HEADER = """# Models

`east check` tries every model before anything is drawn, with a small copy of it that has random weights, in float32.
When a model is loaded to be scored or trained it is compared with its own forward pass in the run's dtype. So a family
that is not in this table is exact as well, or it is refused in one line; run `east check` for one.

- **Training** `exact`: log-probabilities, gradients and the exported folder are those of the model's own forward pass,
  one sequence at a time, with many sequences in a row (`model.packing: shared_prompts`, the default). With
  `model.packing: none` each sequence has a row of its own: for models that carry state from token to token (recurrent
  ones), or whose attention cannot run a packed row. It costs the padding, and the prompt again for every response.
- **LoRA** on all linear modules (`all-linear`), packed as *Training* says: `exact` if its gradient and the merged
  folder are. Some models read a module's weight past the adapter, and PEFT adapts no Mamba layer: other
  `model.lora.target_modules` may do.
- **Sampling** is that of the transformers engine: `exact` if tokens drawn in a batch are those of the forward pass.
  Where it is refused, use vLLM.

The table is written by `docs/generate_models.py` from tiny random models of transformers {version}, and a test runs it:
drawing, an SFT step and a DPO step, export, and loading the exported folder. Pretrained weights were not tried, but for
SmolLM2-135M-Instruct.

| Family | Class in transformers | Training | LoRA | Sampling |
|---|---|---|---|---|
"""
FOOTER = """
## What is refused

- Quantised weights (bitsandbytes, GPTQ, AWQ, FP8, MXFP4): use the unquantised model.
- Python code that comes with a model of which transformers has no class, unless `model.trust_remote_code: true` is
  set; its use is printed. Where transformers has a class, that is used and the code is not run.
- A sequence longer than the model's context; for LongRoPE models, longer than their original context, because a longer
  sequence would change the positions of the others in its batch.

## What training switches off

The policy runs without the dropout and router noise of its own config, so that step 0 has the reference's
log-probabilities exactly. `train.dropout: model` keeps them. `model.lora.dropout` is a setting of its own.

## The exported folder

`final/` is the starting folder with other weights: every other file (tokenizer, chat templates, generation and
processor settings, code, licence) is copied byte for byte, the dtype in `config.json` aside, and tensors that the
language model does not have (an image encoder) are copied. Before training reports success, the folder is loaded as its
users load it, and compared with the model in memory.
"""


def main() -> None:
    """Write the table."""
    tokenizer = tiny_model.make_tokenizer(conftest.family_texts())
    rows = []
    for name, family in model_families.FAMILIES.items():
        with tempfile.TemporaryDirectory() as tmp:
            found = matrix.outcome(name, Path(tmp), tokenizer)
        cells = name, family.config.removesuffix("Config"), found.training, found.lora, found.sampling
        rows.append(f"| {' | '.join(cells)} |\n")
    text = HEADER.format(version=transformers.__version__) + "".join(rows) + FOOTER
    Path(__file__).with_name("models.md").write_text(text)


if __name__ == "__main__":
    main()
