"""Responses without an answer: their endings, the line that tells a user, and the sample that the report lists."""

import re
from pathlib import Path
from typing import Any

import pytest

from east.grading import Grading, QuestionToGrade, Summary, grade
from east.grading.extraction import Extraction
from east.grading.not_found import MOST, Endings, ending, not_found_notice, printable
from east.grading.seeded_sample import SeededSample
from east.report import answers
from east.report.document import Table, markdown_table
from east.run import config, summaries
from east.sampling import engines, first_answers
from east.sampling.engine_interface import Drawn
from east.sampling.first_answers import FirstAnswers
from tests import conftest, drawing, stages
from tests.stages import folder_of

NOWHERE = "We cannot say."  # no extraction finds an answer in it
LINE = (
    'no answer found in {} of {} responses that ended. They end like "We cannot say." ({}). Try '
    r'grading.extraction="last number", or ask for \boxed{{}} in task.system_prompt or task.prompt'
)


def endings(texts: list[str], extraction: Extraction = "marked") -> Endings:
    counts = Endings(extraction)
    for text in texts:
        counts.add(text, found=False)
    return counts


def test_endings_with_the_same_first_word_are_one() -> None:
    """Three begin with "So,", two with a number; "Why?" is last of four and is left out."""
    james = ["He runs.\nSo, James runs 1,080.5 meters a week.", "So, Kim has 3.\n\n", "So, we are done"]
    assert endings(["12 apples", "7.5 pears", "Who?", *james, "Why?"]).report() == {
        "extraction": "marked",
        "ended": 7,
        "missing": 7,
        "endings": [
            {"text": "So, James runs 1,080.5 meters a week.", "count": 3},
            {"text": "12 apples", "count": 2},
            {"text": "Who?", "count": 1},
        ],
    }


def test_an_ending_is_one_short_printable_line() -> None:
    assert ending("first line\n  last line \n \n") == "last line"
    assert ending(" \n") == ""
    long = ending("a" * 39 + "b" * 500 + "c" * 20)
    assert long == "a" * 39 + "…" + "c" * 20 and len(long) == 60
    assert printable("\x1b[2J a\r\x9b\n\u202e\ud800é") == r"\x1b[2J a\r\x9b\n\u202e\ud800é"


def test_different_endings_are_bounded_and_those_that_occur_first_are_counted() -> None:
    letters = ["".join("abcdefghij"[int(digit)] for digit in str(number)) for number in range(MOST + 5)]
    counts = endings([*letters, letters[0], letters[-1], letters[-1]])
    assert len(counts.groups) == MOST and counts.missing == MOST + 8
    assert counts.report()["endings"][0] == {"text": letters[0], "count": 2}


@pytest.mark.parametrize(("missing", "ended", "told"), [(0, 0, False), (3, 30, False), (4, 30, True), (1, 1, True)])
def test_more_than_a_tenth_is_told(missing: int, ended: int, told: bool) -> None:
    counts = endings([NOWHERE] * missing)
    for _ in range(ended - missing):
        counts.add("", found=True)
    assert not_found_notice(counts.report()) == (LINE.format(missing, ended, missing) if told else None)


def test_the_setting_to_try_depends_on_the_one_in_use() -> None:
    assert 'Try grading.extraction="marked", or ask for' in str(not_found_notice(endings([NOWHERE], "boxed").report()))
    assert r"(1). Ask for \boxed{} in" in str(not_found_notice(endings([NOWHERE], "last number").report()))


def test_a_seeded_sample_does_not_depend_on_order_and_takes_some_entries_last() -> None:
    """All of 5 entries that are not `last` are in a sample of 8; a sample of 3 has none of the others."""

    def sample(size: int, numbers: list[int], seed: int = 0) -> list[int]:
        kept = SeededSample[int](size, seed)
        for number in numbers:
            kept.offer(str(number), number, last=number >= 5)
        return kept.entries()

    numbers = list(range(100))
    assert sample(8, numbers) == sample(8, numbers[::-1]) and len(sample(8, numbers)) == 8
    assert set(sample(8, numbers)) > {0, 1, 2, 3, 4} and set(sample(3, numbers)) < {0, 1, 2, 3, 4}
    assert sample(8, numbers) != sample(8, numbers, seed=1) and sample(0, numbers) == []


def question(name: str, texts: list[str], cut: int = 0) -> QuestionToGrade:
    """A question with gold answer 5; the last `cut` of its responses were cut."""
    reasons = ["stop"] * (len(texts) - cut) + ["length"] * cut
    return {
        "question": name, "gold": "5", "sample": list(range(len(texts))), "text": texts, "finish_reason": reasons
    }  # fmt: skip


def summarized(questions: list[QuestionToGrade], **settings: Any) -> dict[str, Any]:
    chosen = Grading(math_verify_sample=0, **settings)
    summary = Summary(chosen)
    list(grade(questions, chosen, summary=summary))
    return summary.report()


def test_the_report_counts_and_samples_responses_without_an_answer() -> None:
    """Of 62 responses 2 were cut; of the 60 others 30 have no answer, 20 of which are listed by their ends."""
    rows = [question(str(k), [r"\boxed{5}", f"{'x' * 400} {NOWHERE}"]) for k in range(30)]
    report = summarized([*rows, question("cut", [NOWHERE, NOWHERE], cut=2)])
    assert report["missing"] == 32 and report["truncated"] == 2
    found = report["no_answer"]
    assert (found["extraction"], found["ended"], found["missing"]) == ("marked", 60, 30)
    assert [e["count"] for e in found["endings"]] == [30]
    assert len({r["question"] for r in found["responses"]} - {"cut"}) == 20 == len(found["responses"])
    assert found["responses"][0]["text"] == "x" * 285 + " " + NOWHERE and found["responses"][0]["sample"] == 1
    few = summarized([question("cut", [NOWHERE, NOWHERE], cut=1)])["no_answer"]["responses"]
    assert few == [
        {"question": "cut", "sample": 0, "truncated": False, "text": NOWHERE},
        {"question": "cut", "sample": 1, "truncated": True, "text": NOWHERE},
    ]


def test_grade_says_it_below_the_counts(capsys: pytest.CaptureFixture[str]) -> None:
    for texts, told in (([NOWHERE] * 3, True), ([r"\boxed{5}"] * 3, False)):
        summaries.show("graded", Path("graded"), summarized([question("q", texts)]))
        assert ("    " + LINE.format(3, 3, 3) in capsys.readouterr().out.splitlines()) is told


def fake_engine(monkeypatch: pytest.MonkeyPatch, text: str, asked: list[int] | None = None) -> None:
    """Every engine draws this text. asked: gets the number of responses of each request."""

    def engine(*_: Any) -> Any:
        def respond(requests: Any) -> Any:
            for request in requests:
                if asked is not None:
                    asked.append(request.count)
                tokens, texts = [[300]] * request.count, [text] * request.count
                yield Drawn(request.question, request.first, tokens, texts, ["stop"] * request.count)

        return respond

    monkeypatch.setattr(engines, "ENGINES", {"transformers": engine, "vllm": engine})


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_sample_says_it_once_after_a_hundred_responses(monkeypatch, model_folder, asked, tmp_path, capsys, engine):
    """12 questions with 12 responses each: 100 is reached in the ninth; raised to 20, the run does not say it again."""
    fake_engine(monkeypatch, NOWHERE, counts := [])

    def printed(line: str, *, flush: bool) -> None:
        print(len(counts), flush, line)

    monkeypatch.setattr(first_answers, "print", printed, raising=False)
    for n in (12, 20):
        chosen = drawing.settings(n=n, engine=engine)
        drawing.draw(tmp_path, *asked, model_folder, chosen, answers=FirstAnswers(Grading()))
        assert capsys.readouterr().out == (f"9 True {LINE.format(100, 100, 100)}\n" if n == 12 else "")


def test_sample_says_nothing_where_answers_are_found_and_does_not_count_cut_ones(capsys) -> None:
    for text, reason in (("The answer is 5.", "stop"), (NOWHERE, "length")):
        watch = FirstAnswers(Grading())
        lines = [Drawn(str(k), 0, [[300]], [text], [reason]) for k in range(120)]
        assert list(watch.watch(lines)) == lines
        watch.end()
    assert capsys.readouterr().out == ""


def test_adaptive_sampling_counts_all_of_its_passes(monkeypatch, model_folder, asked, tmp_path, capsys):
    """Passes of 4, 4 and 4 responses to 12 questions: 96 of 100 after two; fewer than 100 are told at the end."""
    for n, said in ((12, 100), (8, 96)):
        fake_engine(monkeypatch, NOWHERE)
        chosen = drawing.settings(n=n, adaptive=config.Adaptive(first=4, more=4))
        never = lambda rows: [False for _ in rows]  # noqa: E731
        drawing.draw(tmp_path / str(n), *asked, model_folder, chosen, never, answers=FirstAnswers(Grading()))
        assert capsys.readouterr().out == LINE.format(said, said, said) + "\n"


def test_the_stages_say_it_and_the_report_shows_it(monkeypatch, tmp_path, tiny_model, capsys):
    hostile = "<img src=x onerror=alert(1)> `|` ![](http://x)\nWe cannot say."
    fake_engine(monkeypatch, hostile)
    sampling = {"responses": None, "n": 3}
    values = conftest.settings(tmp_path, tiny_model, task={"train_rows": [0, 4]}, sampling=sampling)
    run = config.parse({**values, "grading": {"workers": 1, "math_verify_sample": 4}})
    for verb, flags, count in (("sample", {}, 12), ("grade", {}, 12), ("evaluate", {"base": True}, 20)):
        stages.run(verb, run, **flags)
        assert capsys.readouterr().out.count(LINE.format(count, count, count)) == 1, verb
    (section,) = answers.sections("Answers", folder_of("graded", run.folder_of("graded")))
    assert section.text[0] == "12 responses, 0 right, 12 without an answer."
    assert section.text[1].startswith("12 of 12 responses that ended have no answer. Try grading.extraction=")
    assert [list(table.rows[0]) for table in section.tables[:2]] == [["none", "12", "100.0%"], [NOWHERE, "12"]]
    assert len(section.tables[2].rows) == 12
    stages.run("report", run, study=None)
    page = (run.folder / "report.html").read_text()
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") == 12 and "<img src=x" not in page
    text = (run.folder / "report.md").read_text()
    assert text.count(r"`` <img src=x onerror=alert(1)> `\|` ![](http://x)\nWe cannot say. ``") == 12


def test_a_report_without_the_counts_of_answers_has_no_section(tmp_path: Path) -> None:
    with folder_of("graded", tmp_path / "graded", {}).writing() as (_, summary):
        summary["questions"] = 3
    assert answers.sections("Answers", folder_of("graded", tmp_path / "graded")) == []


def test_conflicting_marks_are_shown_where_they_are_counted(tmp_path: Path) -> None:
    with folder_of("graded", tmp_path / "graded", {}).writing() as (_, summary):
        summary.update(summarized([question("q", [r"\boxed{5}"])]), conflicting_marks=7)
    (section,) = answers.sections("Answers", folder_of("graded", tmp_path / "graded"))
    assert section.text[1:] == ["In 7 responses marks of one kind disagree; the last one is taken."]


def test_texts_of_models_are_code_in_markdown() -> None:
    table = markdown_table(Table(["a"], [["x ```` y | z"], [""]], texts=True))
    assert re.split(r"\n", table)[2:] == [r"| ````` x ```` y \| z ````` |", "|  |"]
