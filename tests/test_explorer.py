"""Weights by question and the responses that a page shows, by hand."""

import base64
import gzip
import hashlib
import json
import re

import numpy as np
import pytest

from east.report import explorer, html_page, weight_figures, weights_by_question
from east.report.document import Section, Table
from tests import synthetic_study

ANSWERS = ["5", "5", "5", "7", "7", "8"]


def unpack(packed):
    return json.loads(gzip.decompress(packed))


@pytest.fixture
def folder(tmp_path):
    """Two questions of six responses: three clusters of 3, 2 and 1; the second has no right response."""
    rows = [synthetic_study.graded_row("q/0", ANSWERS, "5"), synthetic_study.graded_row("q/1", ANSWERS, "9")]
    texts = [[f"{k}{'x' * 99}" for k in range(6)], [f"{k}{'y' * 999}" for k in range(6)]]
    synthetic_study.write_round(tmp_path / "round_1", rows, texts, ["How many?", "Who?\n \ud800"])
    return tmp_path / "round_1"


def test_weights_return_to_their_questions():
    """Four examples of questions b, a, b, c; c's is left out by its rule."""
    weights = weights_by_question.by_question(
        ["a", "b", "c"], np.array([1, 0, 1, 2]), np.array([1.5, 0.5, 1.5, 0.0]), np.array([True, True, True, False])
    )
    assert weights == {"a": 0.5, "b": 1.5}


def test_effective_share_by_hand():
    """h = 1, 1, 2 at a = 1: (4)^2 / 6 = 8/3 of 3; one 0 added at a = -1: (1 + 1 + 1/2)^2 / 2.25 = 25/9 of 4."""
    shares = weights_by_question.effective_shares(np.array([1.0, 1.0, 2.0]), [0.0, 1.0])
    assert shares == pytest.approx([1, 8 / 9])
    assert weights_by_question.effective_shares(np.array([1.0, 1.0, 2.0, 0.0]), [-1.0]) == pytest.approx([25 / 36])
    assert np.isnan(weights_by_question.effective_shares(np.zeros(3), [1.0, -1.0])).all()


def test_missing_strategies_are_computed_at_the_exponent_nearest_to_1(folder):
    synthetic_study.write_weights(
        folder, "sft", [("entropy", 3.0), ("entropy", 2.0), ("accuracy", 3.0), ("uniform", 1.0)]
    )
    graded = weights_by_question.graded_rows(folder / "graded")
    folders = sorted((folder / "weights" / "sft").iterdir())
    columns, (entropy, accuracy) = weights_by_question.with_pair(folders, graded)
    assert [columns[k].label for k in (entropy, accuracy)] == ["sft: entropy a = 3", "sft: accuracy a = 3"]
    columns, (entropy, accuracy) = weights_by_question.with_pair([f for f in folders if "entropy" in f.name], graded)
    labels = [columns[k].label for k in (entropy, accuracy)]
    assert labels == ["sft: entropy a = 2", "sft: accuracy a = 2 (computed for this page)"]
    assert columns[accuracy].weights == {"q/0": 1.0}  # one trained question: its weight is the mean


def test_a_histogram_of_many_exponents_keeps_the_main_one_and_1(folder):
    """Ten exponents, at most six shown: every third (10 / (6 - 2)), a = 1 and the first folder's, 2."""
    exponents = [-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    synthetic_study.write_weights(folder, "sft", [("entropy", a) for a in exponents])
    folders = sorted((folder / "weights" / "sft").iterdir(), key=lambda each: each.name != "entropy-power-2-drop")
    shown = weight_figures.histogram("entropy", folders)
    assert list(shown) == [f"entropy a = {a}" for a in ("-3", "-0.5", "1", "1.5", "2", "3")]
    assert list(weight_figures.histogram("accuracy", folders)) == []


def test_an_exponent_chosen_by_auto_is_named(folder):
    """The settings say a: auto, the summary says which exponent it chose."""
    synthetic_study.write_weights(folder, "sft", [("entropy", 1.0)])
    (place,) = (folder / "weights" / "sft").iterdir()
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["config"]["a"], manifest["summary"]["a"] = "auto", 1.32847
    (place / "manifest.json").write_text(json.dumps(manifest))
    column = weights_by_question.read(place)
    assert (column.label, column.a) == ("sft: entropy a = auto (1.33)", 1.32847)


def test_nothing_indexed_yet_and_nothing_to_weigh(folder):
    """Before `index` every question counts; where all values are 0 there are no weights, and the label says so."""
    graded = weights_by_question.graded_rows(folder / "graded")
    columns, _ = weights_by_question.with_pair([], graded)
    assert [c.weights for c in columns[:1]] == [{"q/0": 1.0, "q/1": 1.0}]  # equal entropies
    assert columns[1].weights == pytest.approx({"q/0": 2 * 0.5 / 1.5, "q/1": 2 / 1.5})  # 1 - A = 1/2 and 1
    settled = {q: {**row, "clusters": row["clusters"][:1]} for q, row in graded.items()}
    columns, _ = weights_by_question.with_pair([], settled)
    assert columns[0].weights == {} and "every value is 0" in columns[0].label


def test_page_data_is_the_folders(folder):
    columns, pair = weights_by_question.with_pair([], weights_by_question.graded_rows(folder / "graded"))
    questions = explorer.question_set("x", folder / "graded", folder / "samples", columns, pair)
    table, (chunk,) = unpack(questions.table), questions.chunks
    assert table["id"] == ["q/0", "q/1"] and table["text"] == ["How many?", "Who? \ud800"] and table["n"] == [6, 6]
    assert table["entropy"][0] == pytest.approx(1.0114, abs=1e-4)  # -(ln 1/2)/2 - (ln 1/3)/3 - (ln 1/6)/6
    first, second = unpack(chunk)
    shown = [(c["answer"], c["count"], c["correct"], [r["sample"] for r in c["responses"]]) for c in first["clusters"]]
    assert shown == [("5", 3, True, [0, 1, 2]), ("7", 2, False, [3, 4]), ("8", 1, False, [5])]
    assert first["clusters"][1]["responses"][0]["text"] == ["3" + "x" * 99]
    assert second["clusters"][0]["responses"][0]["text"] == ["0" + "y" * 349, 300, "y" * 350]
    assert questions.trimmed == {"responses": 12, "shown": 12, "clipped": 6, "clusters": 6, "clusters_listed": 6}
    assert "12 of 12 responses" in explorer.trims(questions) and "6 of them are cut" in explorer.trims(questions)


def test_budget_is_shared_by_questions_and_spent_over_clusters(folder):
    """250 characters a question: 2 responses of 100 for the first, of its two largest clusters; none of 700."""
    columns, pair = weights_by_question.with_pair([], weights_by_question.graded_rows(folder / "graded"))
    questions = explorer.question_set("x", folder / "graded", folder / "samples", columns, pair, budget=500)
    first, second = unpack(questions.chunks[0])
    assert [[r["sample"] for r in c["responses"]] for c in first["clusters"]] == [[0], [3], []]
    assert [c["responses"] for c in second["clusters"]] == [[], [], []]
    assert questions.trimmed["shown"] == 2 and "2 of 12 responses are in this page (at most" in explorer.trims(
        questions
    )


def test_without_samples_counts_remain(folder):
    columns, pair = weights_by_question.with_pair([], weights_by_question.graded_rows(folder / "graded"))
    questions = explorer.question_set("x", folder / "graded", None, columns, pair)
    assert [c["count"] for c in unpack(questions.chunks[0])[0]["clusters"]] == [3, 2, 1]
    assert "12 responses are not in this page" in explorer.trims(questions)


def test_responses_left_out_of_clusters_and_far_clusters_are_counted(tmp_path):
    answers = [f"{k:02}" for k in range(45)]
    row = synthetic_study.graded_row("q", answers, "03")
    row["cluster"][44], row["clusters"], row["k"] = -1, row["clusters"][:44], 44
    synthetic_study.write_round(tmp_path / "round_1", [row], [["t"] * 45], ["?"])
    graded, drawn = tmp_path / "round_1" / "graded", tmp_path / "round_1" / "samples"
    columns, pair = weights_by_question.with_pair([], weights_by_question.graded_rows(graded))
    questions = explorer.question_set("x", graded, drawn, columns, pair)
    (detail,) = unpack(questions.chunks[0])
    clusters = detail["clusters"]
    assert detail["hidden"] == 4 and len(clusters) == 41
    assert (clusters[40]["answer"], clusters[40]["count"]) == (None, 1)
    assert "4 clusters beyond the 40 largest" in explorer.trims(questions)


def test_other_samples_are_refused(folder, tmp_path):
    columns, pair = weights_by_question.with_pair([], weights_by_question.graded_rows(folder / "graded"))
    rows = [synthetic_study.graded_row("q/9", ANSWERS, "5")]
    synthetic_study.write_round(tmp_path / "other" / "round_1", rows, [["t"] * 6], ["?"])
    with pytest.raises(ValueError, match="was made from other samples"):
        explorer.question_set("x", folder / "graded", tmp_path / "other" / "round_1" / "samples", columns, pair)


def test_every_text_of_a_page_is_escaped_and_only_its_own_script_may_run(tmp_path):
    """Title, headings, tables, captions and names of sets with markup, quotes and half a surrogate pair."""
    hostile = "'\"><script>alert(1)</script>\ud800{{ 7 * 7 }}"
    (tmp_path / "plot.svg").write_text("<svg/>")
    section = Section(hostile, [hostile], [Table([hostile], [[hostile]], hostile)], tmp_path / "plot", hostile)
    trimmed = dict.fromkeys(("responses", "shown", "clipped", "clusters", "clusters_listed"), 0)
    page = html_page.page(hostile, [section], [explorer.QuestionSet(hostile, b"index", [b"chunk"], trimmed)])
    page.encode("utf-8")
    assert "alert(1)</script>" not in page
    assert page.count("&#39;&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;?{{ 7 * 7 }}") == 10
    scripts = re.findall(r"<script(?: type=\"[a-z/]+\" id=\"([a-z0-9-]+)\")?>(.*?)</script>", page, re.DOTALL)
    assert [name for name, _ in scripts] == ["sets", "index-0", "chunk-0-0", ""]
    assert json.loads(scripts[0][1])[0]["name"] == hostile
    allowed = base64.b64encode(hashlib.sha256(scripts[-1][1].encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in page
