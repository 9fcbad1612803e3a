"""From a question to its prompt, as text and token ids: by the model's chat template, or by `task.prompt` where it has
none. Everything that can go wrong with prompts is settled here, before anything is drawn.
"""

import re
from collections.abc import Callable
from typing import Any

from east import models
from east.run.config import Task

Prompt = tuple[str, list[int]]  # text and token ids
PLACEHOLDER = "QUESTION-5c1d"  # stands for a question, to see what is around it
LEADS = ("", "\n", "!")  # see `_pieces`
ASSISTANT = "the answer"  # content of an assistant message, to see what ends its turn


def render(tokenizer: Any, question: str, task: Task) -> Prompt:
    """The prompt of a question.

    It has exactly one BOS if the tokenizer puts one before plain text: a template that writes none is given it. Special
    tokens in the question's own text are tokenised as text. Templates that print a date get the fixed `task.date`, so
    that prompts do not change from day to day.
    Raises ValueError without a template and `task.prompt`, when the template raises an error or leaves out the system
    prompt, for an empty prompt, and for a prompt with two BOS.
    """
    template = chat_template(tokenizer, task)
    if template is None and task.prompt is None:
        raise ValueError(
            "the tokenizer has no chat template; set task.prompt, e.g. task.prompt='Question: {question}\\nAnswer:'"
        )

    def text_of(asked: str) -> str:
        if template is not None:
            return _apply(tokenizer, template, _messages(asked, task), task, add_generation_prompt=True)
        assert task.prompt is not None
        # replace, not format: questions and prompts may have the braces of LaTeX
        return task.prompt.replace("{system}", task.system_prompt or "").replace("{question}", asked)

    text = text_of(question)
    if template is not None and task.system_prompt and task.system_prompt.strip() not in text:
        raise ValueError(
            "the chat template leaves out the system message; set task.system_role=user to put task.system_prompt "
            "before the question, or task.system_prompt=null"
        )
    bos = tokenizer.bos_token_id if template is None else models.added_bos(tokenizer)
    ids = _tokens(tokenizer, question, text, text_of)
    if not ids:
        raise ValueError(f"found an empty prompt for the question {question[:60]!r}; check task.prompt")
    if bos is not None and bos not in ids:
        ids = [bos, *ids]
        text = text if template is None else tokenizer.bos_token + text
    if tokenizer.bos_token_id is not None and (
        ids[:2].count(tokenizer.bos_token_id) == 2 or (bos is not None and ids.count(bos) > 1)
    ):
        raise ValueError("the prompt has two BOS tokens; remove BOS from task.prompt or the chat template")
    return text, ids


def end_of_turn(tokenizer: Any, ends: set[int], task: Task) -> int:
    """The token with which the chat template ends an assistant's message, if it is one of the end tokens; the
    tokenizer's eos token without such a template. Gemma's is <end_of_turn>, not <eos>."""
    eos: int = tokenizer.eos_token_id
    template = chat_template(tokenizer, task)
    if template is None:
        return eos
    messages = [*_messages("a question", task), {"role": "assistant", "content": ASSISTANT}]
    text = _apply(tokenizer, template, messages, task, add_generation_prompt=False)
    ids = tokenizer(text.rpartition(ASSISTANT)[2], add_special_tokens=False)["input_ids"]
    return next((token for token in ids if token in ends), eos)


def chat_template(tokenizer: Any, task: Task) -> str | None:
    """The text of the chat template that the task asks for; None if the tokenizer has none.

    Raises ValueError when there is none of the name `task.chat_template`, and for an argument in `task.template` that
    occurs nowhere in it.
    """
    templates, name = tokenizer.chat_template, task.chat_template or "default"
    if not templates:
        if task.template or task.chat_template:
            raise ValueError("task.template, task.chat_template: the tokenizer has no chat template; remove them")
        return None
    if isinstance(templates, str):
        templates = {"default": templates}
    if name not in templates:
        raise ValueError(
            f"task.chat_template: found no chat template {name!r}; set it to one of {', '.join(sorted(templates))}"
        )
    template: str = templates[name]
    if unused := [key for key in task.template if not re.search(rf"\b{re.escape(key)}\b", template)]:
        raise ValueError(f"task.template: the chat template does not use {', '.join(unused)}; fix or remove the key")
    return template


def _messages(question: str, task: Task) -> list[dict[str, str]]:
    if task.system_prompt is None:
        return [{"role": "user", "content": question}]
    if task.system_role == "user":
        return [{"role": "user", "content": f"{task.system_prompt}\n\n{question}"}]
    return [{"role": "system", "content": task.system_prompt}, {"role": "user", "content": question}]


def _apply(
    tokenizer: Any, template: str, messages: list[dict[str, str]], task: Task, *, add_generation_prompt: bool
) -> str:
    try:
        text: str = tokenizer.apply_chat_template(
            messages,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            date_string=task.date,
            strftime_now=lambda _: task.date,
            **task.template,
        )
    except Exception as error:  # templates are programs, and raise any type
        line = " ".join(str(error).split())[:200]
        raise ValueError(
            f"the chat template refuses the prompt ({line}); if it does not accept a system message, set "
            "task.system_role=user, or task.system_prompt=null"
        ) from None
    return text


def _tokens(tokenizer: Any, question: str, text: str, text_of: Callable[[str], str]) -> list[int]:
    """Token ids of the rendered prompt `text`, in which special tokens are read, but not in the question.

    For a question with the text of a special token, the stretch between the special tokens around the question is
    tokenised as text, which changes nothing where no special token stands in it: tokenizers split there.
    text_of: the rendered text of any question. Raises ValueError when that cannot be done for this question.
    """
    special = _special_tokens(tokenizer)
    found = special.search(question)
    if not found:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
    frame = text_of(PLACEHOLDER).split(PLACEHOLDER)
    for own in (question, question.strip()):
        if len(frame) != 2 or frame[0] + own + frame[1] != text:
            continue
        before, behind, neutral = frame[0], frame[1], special.sub("x", own)
        whole = tokenizer(before + neutral + behind, add_special_tokens=False)["input_ids"]
        for lead in LEADS:
            if _pieces(tokenizer, before, behind, neutral, special, lead) == whole:
                return _pieces(tokenizer, before, behind, own, special, lead)
    raise ValueError(
        f"the question {question[:60]!r} contains the special token {found.group()!r}, which this tokenizer and "
        "template cannot take as text; leave the question out"
    )


def _special_tokens(tokenizer: Any) -> re.Pattern[str]:
    """A pattern of the texts of all special tokens."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    longest_first = sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)))


def _pieces(tokenizer: Any, before: str, behind: str, question: str, special: re.Pattern[str], lead: str) -> list[int]:
    """Ids of a question between two texts, of which the stretch around the question has no special tokens.

    lead: stands before the stretch while it is tokenised, and is cut off again: Llama 2's tokenizer, for one, treats
    the beginning of a text differently.
    """
    first = max((found.end() for found in special.finditer(before)), default=0)
    last = found.start() if (found := special.search(behind)) else len(behind)
    stretch = before[first:] + question + behind[:last]
    led = tokenizer(lead + stretch, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [
        *tokenizer(before[:first], add_special_tokens=False)["input_ids"],
        *led[len(tokenizer(lead, add_special_tokens=False)["input_ids"]) if lead else 0 :],
        *tokenizer(behind[last:], add_special_tokens=False)["input_ids"],
    ]
