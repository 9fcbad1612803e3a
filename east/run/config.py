"""What a run is: typed sections, read from YAML, overridden on the command line.

`load("configs/x.yaml", ["train.lr=1e-5"])` merges, in this order: the file named by the `base:` key (which
may itself name a base), the file, the overrides. Unknown keys are refused with the nearest valid name.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from east.grading import Grading
from east.run import yaml_file
from east.run.loss_table import LOSSES, Normalization
from east.run.validation import LocalPath, Section, one_of, validate
from east.weighting.entropy import Estimator
from east.weighting.weights import Mapping, Strategy

BASE = "base"  # the starting model's name among results
NAME = r"^\w[\w.+-]*$"  # of a folder, not a path
Beta = Annotated[float, Field(ge=0, lt=1)]
RESERVED = {  # arguments of transformers' apply_chat_template
    "conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize",
    "date_string", "continue_final_message", "padding", "truncation", "max_length", "return_tensors", "return_dict",
    "strftime_now", "return_assistant_tokens_mask", "tokenizer_kwargs", "processor_kwargs", "load_audio_from_video",
}  # fmt: skip
SYSTEM_PROMPT = r"Please reason step by step, and put your final answer within \boxed{}."


class Lora(Section):
    """LoRA through PEFT; the base stays frozen and is the reference."""

    r: int = Field(16, ge=1, description="rank")
    alpha: int = Field(16, ge=1, description="scale is alpha / r")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    target_modules: str | list[str] = Field("all-linear", description="PEFT's target_modules")


class Model(Section):
    """The model that samples, is trained, and (before training) is the reference."""

    path: LocalPath = Field(description="hub name or local folder of a model or of a PEFT adapter")
    revision: str | None = Field(None, description="hub revision")
    trust_remote_code: bool = Field(False, description="run Python code that comes with the model")
    packing: Literal["shared_prompts", "none"] = Field(
        "shared_prompts",
        description="in training: many sequences in a row, equal prompts once; none: a row for each (recurrent models)",
    )
    attention: Literal["packed", "packed_sdpa"] = Field(
        "packed",
        description="in training, if packed: the best kernel (flash-attn where installed), or plain SDPA per sequence",
    )
    lora: Lora | None = Field(None, description="LoRA settings; null trains every weight")

    @property
    def training_attention(self) -> str | None:
        """transformers' attn_implementation in training; None without packing: the model's own."""
        return self.attention if self.packing == "shared_prompts" else None


class Task(Section):
    """Where questions come from and how they are asked."""

    name: Literal["gsm8k", "math", "jsonl", "arithmetic"] = Field("gsm8k", description="which task")
    train: LocalPath | None = Field(None, description="train questions: local .jsonl[.gz] or hub name")
    test: LocalPath | None = Field(None, description="test questions: local .jsonl[.gz] or hub name")
    shuffle: int | None = Field(
        None, ge=0, description="seed of a shuffle of the train rows, before train_rows is applied"
    )
    train_rows: tuple[int, int] | None = Field(None, description="use rows [first, last) of train")
    test_rows: tuple[int, int] | None = Field(None, description="use rows [first, last) of test")
    level: Literal["easy", "hard"] = Field("easy", description="arithmetic: how hard the problems are")
    system_prompt: str | None = Field(SYSTEM_PROMPT, description="system message; null: none")
    system_role: Literal["system", "user"] = Field(
        "system", description="user: put system_prompt before the question, for templates without a system role"
    )
    template: dict[str, Any] = Field({}, description="arguments of the chat template, e.g. {enable_thinking: false}")
    chat_template: str | None = Field(
        None, description="name of the chat template, of a tokenizer with several; null: default"
    )
    prompt: str | None = Field(
        None, description="prompt text with {system} and {question}, for tokenizers without a chat template"
    )
    date: str = Field("26 Jul 2024", description="date for chat templates that print one")

    @model_validator(mode="after")
    def _check(self) -> "Task":
        if taken := sorted(RESERVED & self.template.keys()):
            raise ValueError(f"template: {', '.join(taken)} is set by other keys of this file; remove it")
        if self.name == "arithmetic" and self.shuffle is not None:
            raise ValueError("shuffle: arithmetic problems are in random order already; remove the key")
        return self


class Adaptive(Section):
    """Fewer responses where more would not change the entropy; the rule is `settled` in east/weighting/entropy.py."""

    first: int = Field(16, ge=1, description="responses drawn to every question first")
    more: int = Field(16, ge=1, description="responses added per step, up to n")
    tolerance: float = Field(
        0.02,
        gt=0,
        description="in nats: stop where one more response would lower the squared error of h by less than its square",
    )


class Sampling(Section):
    """Drawing responses."""

    engine: Literal["auto", "vllm", "transformers"] = Field(
        "auto", description="auto: vllm where installed, else transformers"
    )
    n: int = Field(128, ge=1, description="responses per question; with adaptive the maximum")
    adaptive: Adaptive | None = Field(
        None, description="draw more only where the entropy needs it; null: n for every question"
    )
    temperature: float = Field(1.0, ge=0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus sampling")
    max_tokens: int = Field(2048, ge=1, description="longest response, in tokens")
    stop: list[str] = Field([], description="texts that end a response (not part of its text)")
    seed: int = Field(0, ge=0, description="with question and sample number it determines a response")
    dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="dtype of the weights")
    tensor_parallel: int = Field(1, ge=1, description="GPUs per engine (vllm)")
    max_model_len: int | None = Field(
        None, ge=1, description="most tokens of prompt and response together; null: the model's limit"
    )
    gpu_memory: float = Field(0.9, gt=0, le=1, description="share of GPU memory (vllm)")
    batch: int = Field(
        128, ge=1, description="sequences at a time: vLLM's max_num_seqs, or the transformers engine's batch"
    )
    responses: LocalPath | None = Field(
        None, description="JSONL of question and response made elsewhere; nothing is sampled"
    )

    @property
    def plan(self) -> dict[str, Any]:
        """What decides a response besides engine, model and question; the other settings only decide the speed."""
        names = {"temperature", "top_p", "max_tokens", "stop", "seed", "dtype", "max_model_len"}
        return self.model_dump(mode="json", include=names)

    @model_validator(mode="after")
    def _check(self) -> "Sampling":
        if self.temperature == 0 and self.n > 1 and self.responses is None:
            raise ValueError(f"n={self.n} at temperature 0 gives equal responses; set n=1 or a temperature")
        return self


class Weighting(Section):
    """Counts to weights; see east/weighting/weights.py for the equations."""

    strategy: Strategy = Field(
        "entropy", description="equal weights; h; 1 - A; A; R, the share of the largest wrong cluster"
    )
    entropy: Estimator = Field("plugin", description="estimator of h: Eq. 1, or one with less bias at small n")
    mapping: Mapping = Field("power", description="Eq. 3; Eq. 4; Eq. 6")
    a: float | Literal["auto"] = Field(
        1.0, description="exponent of the power mapping; auto: the largest that min_ess allows"
    )
    min_ess: float = Field(
        0.5, gt=0, lt=1, description="a=auto: least effective sample size (sum w)^2 / sum w^2, as a share of N"
    )
    spread: float | None = Field(None, ge=0, description="R of the linear mapping: max weight - min weight")
    zero: Literal["refuse", "drop"] = Field(
        "refuse", description="with a < 0, examples whose value is 0: stop, or leave them out"
    )

    @property
    def used(self) -> dict[str, Any]:
        """The settings that decide the weights."""
        return {"strategy": "uniform"} if self.strategy == "uniform" else self.model_dump()

    @property
    def slug(self) -> str:
        """Short name, e.g. `entropy-power-1.5` or `entropy-chao_shen-power-auto-0.5`."""
        if self.strategy == "uniform":
            return "uniform"
        a = f"auto-{self.min_ess:g}" if self.a == "auto" else f"{self.a:g}"
        tail = {"mean": "", "linear": f"-{self.spread}", "power": f"-{a}"}[self.mapping]
        estimator = f"-{self.entropy}" if self.strategy == "entropy" and self.entropy != "plugin" else ""
        return f"{self.strategy}{estimator}-{self.mapping}{tail}" + ("-drop" if self.zero == "drop" else "")

    @model_validator(mode="after")
    def _check(self) -> "Weighting":
        if self.mapping == "linear" and self.spread is None and self.strategy != "uniform":
            raise ValueError("mapping: linear needs weighting.spread (the R of Eq. 4)")
        if self.a == "auto" and self.mapping != "power":
            raise ValueError("a: auto is an exponent; it needs weighting.mapping=power")
        return self


class Examples(Section):
    """Which responses become training examples."""

    name: str | None = Field(None, pattern=NAME, description="folder of the dataset; null: the loss's name")
    per_question: int = Field(1, ge=1, description="examples drawn per question")
    wrong_answer: Literal["random", "most_frequent"] = Field(
        "random", description="DPO, KTO: any wrong response, or one with the most frequent wrong answer"
    )
    drop_all_right: bool = Field(False, description="leave out questions without a wrong response")
    drop_unboxed: bool = Field(
        False, description="leave out questions without a boxed right or without a boxed wrong response"
    )
    drop_disagreement: bool = Field(False, description="leave out questions on which grader and string match disagree")
    max_length: int = Field(4096, ge=2, description="prompt + response; longer ones are left out, never cut")
    keep_truncated: bool = Field(True, description="use responses cut by max_tokens (without an end token)")
    kl_plans: int | None = Field(
        None, ge=1, description="KTO: plans of mismatched pairs, epoch e uses plan e mod kl_plans; null: train.epochs"
    )
    seed: int = Field(0, ge=0, description="seed of the draw of examples and mismatched pairs")


class Loss(Section):
    """The objective; equations in east/training/losses.py."""

    name: Annotated[str, one_of(LOSSES)] = Field("sft", description=", ".join(LOSSES))
    beta: float = Field(0.1, gt=0, description="DPO, KTO: scale of the log-ratios")
    normalization: Normalization = Field(
        "example",
        description="SFT: divide by T_i; by nothing; by the step's mean T; by the micro-batch's, as the release",
    )
    lambda_desirable: float = Field(1.0, ge=0, description="KTO: factor of right responses")
    lambda_undesirable: float = Field(1.0, ge=0, description="KTO: factor of wrong responses")
    kl: Literal["step", "microbatch"] = Field(
        "step", description="KTO: z0 is a mean over the step, or over each micro-batch"
    )
    local_weight: Literal["none", "lw_p", "lw_w"] = Field(
        "none", description="LW(P), Eq. 8-9, or LW(W), Eq. 10: a factor besides w"
    )

    @property
    def depends_on_split(self) -> bool:
        """Whether something is averaged over micro-batches, so that their size changes the loss."""
        return any(getattr(self, key) == "microbatch" for key in LOSSES[self.name].settings)

    @property
    def used(self) -> dict[str, Any]:
        """The settings that this loss reads."""
        return self.model_dump(include={"name", "local_weight", *LOSSES[self.name].settings})


class Train(Section):
    """Optimisation."""

    epochs: int = Field(3, ge=1, description="passes over the examples")
    batch_size: int = Field(16, ge=1, description="examples per optimizer step, over all ranks")
    micro_batch: int = Field(4, ge=1, description="examples per forward pass of one rank")
    micro_tokens: int | None = Field(
        None, ge=1, description="in place of micro_batch: tokens per forward pass, balanced over ranks"
    )
    lr: float = Field(2e-6, gt=0, description="peak learning rate")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="warm-up steps, as a share of all")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="learning rate after warm-up")
    weight_decay: float = Field(0.0, ge=0, description="AdamW")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="AdamW")
    eps: float = Field(1e-8, gt=0, description="AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient norm above which gradients are clipped")
    dtype: Literal["bfloat16", "float32"] = Field("bfloat16", description="dtype of the weights")
    deepspeed: LocalPath = Field("zero1", description="ZeRO: zero0 to zero3, zero2_offload, zero3_offload, or a file")
    gradient_checkpointing: bool = Field(False, description="recompute activations")
    compile: bool = Field(False, description="torch.compile every decoder layer (not with ZeRO 3)")
    dropout: Literal["none", "model"] = Field(
        "none", description="dropout and router noise of the model itself: off, or as its config says"
    )
    head_chunk: int = Field(2048, ge=1, description="completion tokens per chunk of the LM head")
    checkpoint_every: int = Field(100, ge=1, description="steps between checkpoints")
    max_steps: int | None = Field(
        None, ge=1, description="stop after so many steps; the schedule stays that of all epochs"
    )
    tensorboard: bool = Field(False, description="also write TensorBoard events")
    wandb: str | None = Field(None, description="Weights & Biases project")
    seed: int = Field(0, ge=0, description="seed of the order of examples and of dropout")


class Eval(Section):
    """Greedy sampling on the test split."""

    split: Literal["train", "test"] = Field(
        "test", description="questions of the test split, or held-out train rows (to choose exponents)"
    )
    rows: tuple[int, int] | None = Field(None, description="rows [first, last) instead of the task's")
    max_tokens: int | None = Field(None, ge=1, description="null: sampling.max_tokens")


class Rounds(Section):
    """Algorithm 1's outer loop."""

    count: int = Field(1, ge=1, description="T, the number of rounds")
    launcher: str = Field("python", description="starts reference and train, e.g. deepspeed --num_gpus 8")


class Config(Section):
    """A run. `run` is its folder; `name` distinguishes the trained models of one run."""

    run: LocalPath = Field(description="folder of the run")
    name: str | None = Field(None, pattern=NAME, description="the trained model's name; null: loss-weighting")
    round: int = Field(1, ge=1, description="the round this command works on")
    model: Model
    task: Task = Task()
    sampling: Sampling = Sampling()
    grading: Grading = Grading()
    weighting: Weighting = Weighting()
    examples: Examples = Examples()
    loss: Loss = Loss()
    train: Train = Train()
    eval: Eval = Eval()
    rounds: Rounds = Rounds()

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.name == BASE:
            raise ValueError(f"name: {BASE} is the starting model's name; choose another")
        if self.examples.kl_plans is None:  # resolved here, once: sections are frozen
            plans = self.examples.model_copy(update={"kl_plans": self.train.epochs})
            object.__setattr__(self, "examples", plans)
        return self

    @property
    def label(self) -> str:
        """The trained model's name: `name`, or loss and weighting."""
        return self.name or f"{self.loss.name}-{self.weighting.slug}"

    @property
    def folder(self) -> Path:
        """Folder of this round's artefacts."""
        return Path(self.run) / f"round_{self.round}"

    @property
    def eval_suffix(self) -> str:
        """Distinguishes results on other questions than the task's test rows, e.g. `-train-7000-7473`."""
        rows = "" if self.eval.rows is None else "-{}-{}".format(*self.eval.rows)
        return "" if self.eval.split == "test" and not rows else f"-{self.eval.split}{rows}"

    @property
    def starting_model(self) -> tuple[str, str | None, Path, bool]:
        """Arguments of `models.resolve`: path, revision, the folder for an adapter merged into its base, and whether
        the model's own code is run."""
        return self.model.path, self.model.revision, Path(self.run) / "merged", self.model.trust_remote_code

    def folder_of(self, kind: str) -> Path:
        """The folder of an artefact of this run. Columns are under the dataset's name, models under `label`."""
        dataset = self.examples.name or self.loss.name
        inner = {
            "samples": Path(),
            "graded": Path(),
            "dataset": Path(dataset),
            "reference": Path(dataset),
            "scores": Path(),
            "weights": Path(dataset, self.weighting.slug),
            "train": Path(self.label),
            "eval": Path(self.label),
        }[kind]
        return self.folder / kind / inner


def load(path: str | Path, overrides: list[str] | None = None) -> Config:
    """Read a run file and apply `section.key=value` overrides.

    Raises ValueError in one line: a missing file, broken YAML, an unknown key (with the nearest valid one),
    or a value of the wrong type.
    """
    return parse(yaml_file.read(path, overrides), str(path))


def parse(values: dict[str, Any], where: str = "config") -> Config:
    """Validate a nested dict; errors name the key, what was found and what is expected."""
    return validate(Config, values, where)


def to_yaml(config: Config) -> str:
    """The resolved run file, every key written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
