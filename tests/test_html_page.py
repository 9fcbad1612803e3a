"""report.html in a real headless Chromium without a network: what is clicked, sorted and filtered is what is on disk.

Needs Debian's chromium and chromium-driver (`apt-get install chromium chromium-driver`); skipped without them.
"""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from east.report import compose, explorer, html_page, weights_by_question
from east.run import config, files
from tests import conftest, synthetic_study

webdriver = pytest.importorskip("selenium.webdriver")
DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    not (DRIVER and BROWSER), reason="no chromium and chromedriver here: apt-get install chromium chromium-driver"
)
ARROW_DOWN, END = "\ue015", "\ue010"
REJECTION = "#list .row > :nth-child(4)"
SPOT = """  // a drawn point whose surroundings are all its colour: [x, y] from the canvas's corner
    const c = document.getElementById("scatter"), ratio = devicePixelRatio, d = c.getContext("2d");
    const image = d.getImageData(0, 0, c.width, c.height).data;
    const vivid = (x, y) => { const p = 4 * (y * c.width + x); return image[p + 2] - image[p] > 60; };
    for (let y = 12; y < c.height - 60; y++) for (let x = 60; x < c.width - 20; x++)
        if ([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]].every(([i, j]) => vivid(x + i, y + j)))
            return [x / ratio, y / ratio];
"""


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1400,1000"):
        options.add_argument(f"--{word}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")  # no network
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


def wait(driver, script, *words, seconds=30):
    """The first true value of a script's expression."""
    end = time.monotonic() + seconds
    while not (result := driver.execute_script(f"return {script}", *words)):
        assert time.monotonic() < end, f"{script} stayed false: {driver.get_log('browser')}"
        time.sleep(0.02)
    return result


def visit(driver, path: Path) -> float:
    """Open a page without errors, fetches and other scripts; returns the seconds until it can be used."""
    start = time.monotonic()
    driver.get(path.as_uri())
    wait(driver, "document.body && document.body.dataset.ready")
    wait(driver, "document.getElementById('scatter').dataset.painted")
    seconds = time.monotonic() - start
    clean(driver)
    return seconds


def clean(driver):
    fetched = "performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"
    assert driver.get_log("browser") == []
    assert driver.execute_script(f"return [{fetched}.length, typeof window.pwned]") == [0, "undefined"]


def texts(driver, selector: str) -> list[str]:
    """Texts of the elements that a selector finds; half a surrogate pair, which the driver cannot send, is replaced."""
    elements = "[...document.querySelectorAll(arguments[0])].map(e => e.textContent.toWellFormed())"
    return driver.execute_script(f"return {elements}", selector)


def ids(driver) -> list[str]:
    """Question ids of the rows in sight."""
    rows = "[...document.querySelectorAll('#list .row')].map(r => r.firstChild.firstChild.textContent.toWellFormed())"
    return driver.execute_script(f"return {rows}")


def picked(driver, name: str | None = None) -> str:
    """The id that the panel shows, once it shows one (or `name`)."""
    title = "document.querySelector('#panel h2')?.textContent.toWellFormed()"
    return wait(driver, title if name is None else f"{title} === arguments[0] && arguments[0]", name)


def fill(driver, name, value):
    driver.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', {bubbles: true}))", name, value
    )  # fmt: skip


def count(driver):
    (text,) = texts(driver, "#count")
    return int(text.split(" of")[0].replace(",", ""))


def well_formed(text: str) -> str:
    """What toWellFormed makes of a text: the driver cannot send half a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """The page of a synthetic run with hostile texts: (path, graded rows, entropy weights, accuracy weights)."""
    folder = tmp_path_factory.mktemp("page") / "round_1"
    rng = np.random.default_rng(3)
    synthetic_study.write_round(folder, *synthetic_study.random_rows(90, 12, rng, hostile=True))
    synthetic_study.write_weights(folder, "sft", [("uniform", 1.0), ("entropy", 1.0), ("accuracy", 1.0)])
    weights = sorted((folder / "weights" / "sft").iterdir())
    packed = compose.packed("run", folder / "graded", folder / "samples", weights, explorer.BUDGET)
    path = folder / "report.html"
    files.write_text(path, html_page.page("A </title><script>window.pwned=9</script> run", [], [packed]))
    columns = {c.strategy: c.weights for c in map(weights_by_question.read, weights)}
    rows = {row["question"]: row for row in files.read_jsonl(folder / "graded" / "questions.jsonl")}
    return path, rows, columns["entropy"], columns["accuracy"]


def test_opens_without_network_and_hostile_text_does_not_run(browser, synthetic):
    path, rows, _, _ = synthetic
    visit(browser, path)
    for k in range(len(synthetic_study.HOSTILE) + 2):  # every hostile text comes into sight
        browser.execute_script("document.querySelectorAll('#list .row')[arguments[0]].click()", k)
        time.sleep(0.05)
    for name in ("synthetic/train/0</script>", "synthetic/train/1<img"):
        fill(browser, "find", name)
        browser.execute_script("document.querySelector('#list .row').click()")
        wait(browser, "document.querySelector('#panel h2').textContent.startsWith(arguments[0])", name)
    clean(browser)
    elements_of_text = "return document.querySelectorAll('#panel img, #panel script, #list img, #list script').length"
    assert browser.execute_script(elements_of_text) == 0
    assert count(browser) == 1 and "<img src=x" not in path.read_text()


def test_order_is_by_disagreement_of_entropy_and_accuracy_weights(browser, synthetic):
    path, rows, entropy, accuracy = synthetic
    visit(browser, path)
    gaps = {q: abs(entropy[q] - accuracy[q]) for q in rows if q in entropy}
    best = sorted(gaps.values(), reverse=True)
    shown = [gaps[next(q for q in rows if well_formed(q) == name)] for name in ids(browser)]
    assert len(shown) >= 8 and shown == pytest.approx(best[: len(shown)], abs=1e-4)


def test_click_on_a_point_shows_question_clusters_responses_and_weights(browser, synthetic):
    path, rows, entropy, accuracy = synthetic
    visit(browser, path)
    x, y = browser.execute_script(SPOT)
    canvas = browser.find_element("id", "scatter")
    middle = [canvas.size["width"] / 2, canvas.size["height"] / 2]
    chain = webdriver.ActionChains(browser).move_to_element_with_offset(canvas, x - middle[0], y - middle[1])
    chain.click().perform()
    name = picked(browser)
    row = next(r for q, r in rows.items() if well_formed(q) == name)
    (panel,) = texts(browser, "#panel")
    assert f"{row['entropy']:.3f}entropy" in panel and f"{row['accuracy']:.3f}accuracy" in panel
    assert f"Gold answer: {row['gold']}" in panel and "in decimal?" in panel
    expected = {"sft: entropy a = 1": entropy, "sft: accuracy a = 1": accuracy}
    weights = dict(zip(texts(browser, ".weight > :first-child"), texts(browser, ".weight > :last-child"), strict=True))
    for label, column in expected.items():
        assert weights[label] == (f"{column[row['question']]:.3f}" if row["question"] in column else "not trained")
    assert weights["sft: vanilla"] == "1.000" and "sft: rejection a = 1 (computed for this page)" in weights
    marks = texts(browser, "#panel summary")
    assert len(marks) == row["k"]
    for mark, cluster in zip(marks, row["clusters"], strict=True):
        assert mark[0] == ("✓" if cluster["correct"] else "✗") and mark.endswith(f"{cluster['count']} of {row['n']}")
    responses = texts(browser, "#panel .response")
    assert responses and all("So the answer is" in t and ("right" in t or "wrong" in t) for t in responses)
    # the clicked point has the colour of a larger entropy weight
    assert entropy[row["question"]] - accuracy[row["question"]] >= 0.1
    clean(browser)


def test_sort_and_filter_change_the_list(browser, synthetic):
    path, rows, entropy, _ = synthetic
    visit(browser, path)
    browser.execute_script("document.querySelector('[data-sort=rejection]').click()")
    values = sorted((r["rejection"] for r in rows.values()), reverse=True)
    assert texts(browser, REJECTION)[:6] == [f"{v:.2f}" for v in values[:6]]
    browser.execute_script("document.querySelector('[data-sort=rejection]').click()")
    assert texts(browser, REJECTION)[0] == f"{values[-1]:.2f}"
    fill(browser, "accuracy-low", "0.25")
    fill(browser, "accuracy-high", "0.75")
    between = [r for r in rows.values() if 0.25 <= r["accuracy"] <= 0.75]
    assert count(browser) == len(between) < len(rows)
    fill(browser, "weight-low", "1.2")
    assert count(browser) == sum(entropy.get(r["question"], 0) >= 1.2 for r in between)
    fill(browser, "find", "no such words")
    assert count(browser) == 0 and ids(browser) == []
    browser.find_element("id", "clear").click()
    assert count(browser) == len(rows)
    clean(browser)


def test_keyboard_walks_through_the_list(browser, synthetic):
    visit(browser, synthetic[0])
    names = ids(browser)
    listbox = browser.find_element("id", "list")
    listbox.send_keys(ARROW_DOWN)
    picked(browser, names[0])
    listbox.send_keys(ARROW_DOWN)
    picked(browser, names[1])
    listbox.send_keys(END)
    wait(browser, "document.querySelector('#list .row[aria-selected=true]')?.ariaPosInSet === '90'")


SWITCH = """  // choose a set
    const s = document.getElementById("set"); s.value = arguments[0]; s.dispatchEvent(new Event("change"));
"""


SLOW = """  // what is unpacked next comes 300 ms late
    const json = Response.prototype.json;
    Response.prototype.json = async function () {
        Response.prototype.json = json;
        const value = await json.call(this);
        await new Promise(done => setTimeout(done, 300));
        window.answered = true;
        return value;
    };
"""


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory):
    """A page of two sets whose questions have different names."""
    sets = []
    for name in ("first", "second"):
        folder = tmp_path_factory.mktemp(name) / "round_1"
        rows, responses, asked = synthetic_study.random_rows(70, 8, np.random.default_rng(1), hostile=False)
        rows = [{**row, "question": f"{name}/{k}"} for k, row in enumerate(rows)]
        synthetic_study.write_round(folder, rows, responses, asked)
        sets.append(compose.packed(name, folder / "graded", folder / "samples", [], explorer.BUDGET))
    path = tmp_path_factory.mktemp("two") / "report.html"
    files.write_text(path, html_page.page("two", [], sets))
    return path


def test_choosing_another_set_empties_the_panel(browser, two_sets):
    """Also where a clicked question was still being unpacked; of two choices the last one counts."""
    visit(browser, two_sets)
    first = "document.querySelector('#list .row span')?.textContent.startsWith(arguments[0])"
    (idle,) = texts(browser, "#panel")
    assert picked_after_click(browser).startswith("first/")
    browser.execute_script(SWITCH, 1)
    wait(browser, first, "second/")
    assert texts(browser, "#panel") == [idle]
    assert picked_after_click(browser).startswith("second/")

    visit(browser, two_sets)
    browser.execute_script(SLOW + "document.querySelector('#list .row').click();" + SWITCH, 1)
    wait(browser, first, "second/")
    wait(browser, "window.answered")
    time.sleep(0.1)
    assert texts(browser, "#panel") == [idle]

    visit(browser, two_sets)
    browser.execute_script(SWITCH + "s.value = 0; s.dispatchEvent(new Event('change'));", 1)
    time.sleep(0.5)
    assert all(name.startswith("first/") for name in ids(browser)) and count(browser) == 70
    assert picked_after_click(browser).startswith("first/")
    clean(browser)


def picked_after_click(driver) -> str:
    """Click the first row; returns the id that the panel then shows."""
    driver.execute_script("document.querySelector('#list .row').click()")
    return picked(driver, ids(driver)[0])


def test_narrow_window_does_not_scroll_sideways(browser, synthetic):
    browser.set_window_size(500, 900)
    try:
        visit(browser, synthetic[0])
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    finally:
        browser.set_window_size(1400, 1000)


def test_page_of_a_real_run(browser, tmp_path, tiny_model):
    """Graded, indexed and weighed, but not evaluated: `east report` writes a page."""
    run = conftest.prepare(tmp_path, tiny_model)
    done = conftest.command("python", "-m", "east", "report", "--config", conftest.run_file(tmp_path, run))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Nothing has been evaluated yet" in (run.folder / "report.md").read_text()
    visit(browser, run.folder / "report.html")
    assert count(browser) == conftest.QUESTIONS
    browser.execute_script("document.querySelector('#list .row').click()")
    wait(browser, "document.querySelector('#panel .response')")
    (panel,) = texts(browser, "#panel")
    assert "sft: entropy a = 1" in panel and "sft: accuracy a = 1 (computed for this page)" in panel
    assert run.weighting == config.Weighting()


def test_a_page_of_7500_questions_with_128_responses_is_fast(browser, tmp_path):
    """As many as in the paper's runs: the page is small, opens and answers fast, and says what it leaves out."""
    few, responses, asked = synthetic_study.random_rows(150, 128, np.random.default_rng(5), hostile=False)
    rows = [{**few[k % 150], "question": f"synthetic/train/{k}"} for k in range(7500)]
    folder = tmp_path / "round_1"
    synthetic_study.write_round(folder, rows, responses * 50, asked * 50)
    synthetic_study.write_weights(folder, "sft", [("entropy", 1.0), ("accuracy", 1.0)])
    weights = sorted((folder / "weights" / "sft").iterdir())
    start = time.monotonic()
    packed = compose.packed("run", folder / "graded", folder / "samples", weights, 6_000_000)
    files.write_text(folder / "report.html", html_page.page("run", [], [packed]))
    built = time.monotonic() - start
    size = (folder / "report.html").stat().st_size / 1e6
    opened = visit(browser, folder / "report.html")
    assert 8 < len(ids(browser)) < 40  # of 7,500
    (about,) = texts(browser, "#about")
    assert about.split(" of ")[1].startswith("960,000") and packed.trimmed["shown"] < 960_000
    start = time.monotonic()
    fill(browser, "entropy-low", "1")
    browser.execute_script("document.querySelector('[data-sort=weight]').click()")
    filtered = time.monotonic() - start
    start = time.monotonic()
    browser.execute_script("document.querySelectorAll('#list .row')[3].click()")
    wait(browser, "document.querySelector('#panel .response')")
    clicked = time.monotonic() - start
    clean(browser)
    figures = {"MB": size, "built_s": built, "opened_s": opened, "filtered_s": filtered, "clicked_s": clicked}
    print(json.dumps({k: round(v, 3) for k, v in figures.items()}))
    assert size < 16 and opened < 15 and filtered < 3 and clicked < 3, figures
