"""The report of a run or of a study: report.md, report.html and figures/, from the results on disk."""

from pathlib import Path

from east.evaluation import run_results
from east.report import answers, explorer, html_page, run_table, study_text, weight_figures, weights_by_question
from east.report.document import Section, markdown, markdown_table
from east.report.explorer import QuestionSet
from east.run import files, pipeline
from east.run.config import Config
from east.study import results
from east.study.rows import StudyRow


def report_run(config: Config) -> None:
    """One round of a run: its results, its weights and its questions."""
    folder = config.folder
    rows = run_results.results(folder / "eval")
    graded = folder / "graded"
    has_questions = pipeline.at("graded", graded).exists()
    if not rows and not has_questions:
        raise ValueError(f"{folder} has no results; run `{pipeline.COMMANDS['evaluation']}`")
    text = [] if rows else ["Nothing has been evaluated yet."]
    sections = [Section("Results", text, [run_table.table(rows)] if rows else [])]
    sets = []
    if has_questions:
        sections += answers.sections("Answers", pipeline.at("graded", graded))
        main = config.folder_of("weights")
        complete = (path.parent for path in (folder / "weights").glob("*/*/manifest.json"))
        columns = sorted(complete, key=lambda each: (each != main, each))
        sections += weight_figures.sections({config.run: [(columns, graded)]}, folder / "figures")
        drawn = folder / "samples" if pipeline.at("samples", folder / "samples").exists() else None
        sets = [packed(config.run, graded, drawn, columns, explorer.BUDGET)]
    if rows:
        print(markdown_table(sections[0].tables[0]) + "\n")
    print("\n".join([f"files: {folder}", *(f"    eval/{row['name']}/  {row['model']}" for row in rows)]))
    write(f"{config.run}, round {config.round}", sections, sets, folder)


def report_study(folder: Path) -> None:
    """A study: Table 1, Figures 3 to 5, n, weights, and the questions of every task's first seed."""
    study = results.read(folder)
    cells = results.done(study["cells"])
    rows = results.table1(study, folder)
    first = [study_text.summary(study, rows), *([study_text.table1(rows)] if rows else [])]
    sets, graded_sections, weighed = [], [], {}
    weighted = [c for c in cells if c.get("graded") and c.get("weights") and c["round"] == 1]
    groups = results.groups(weighted, "task", "model")
    for (task, model), group in groups.items():
        seeds: dict[object, StudyRow] = {}
        # of each seed a cell of the main experiment, where there is one: its samples have the largest n
        for cell in sorted(group, key=lambda c: "table1" not in c["in"]):
            seeds.setdefault(cell["seed"], cell)
        weighed[f"{task}, {model}"] = [(folders(folder, group, c), folder / str(c["graded"])) for c in seeds.values()]
        cell = next(iter(seeds.values()))
        samples = folder / str(cell["samples"]) if cell.get("samples") else None
        name, share = f"{task}, {model}, seed {cell['seed']}", explorer.BUDGET // len(groups)
        graded = folder / str(cell["graded"])
        graded_sections += answers.sections(f"Answers: {name}", pipeline.at("graded", graded))
        sets.append(packed(name, graded, samples, folders(folder, group, cell), share))
    weights = weight_figures.sections(weighed, folder / "figures")
    sections = [*first, *study_text.curves(study["cells"], folder), *weights, *graded_sections]
    for section in first:
        print("\n".join([*section.text, *map(markdown_table, section.tables)]) + "\n")
    print(f"files: {folder}")
    write(f"Study {study.get('name', folder.name)}", sections, sets, folder)


def folders(folder: Path, group: list[StudyRow], cell: StudyRow) -> list[Path]:
    """Distinct weights folders of the cells that share one cell's graded responses."""
    return list(dict.fromkeys(folder / str(c["weights"]) for c in group if c["graded"] == cell["graded"]))


def packed(name: str, graded: Path, drawn: Path | None, columns: list[Path], budget: int) -> QuestionSet:
    """The explorer of a graded folder."""
    weighed, pair = weights_by_question.with_pair(columns, weights_by_question.graded_rows(graded))
    return explorer.question_set(name, graded, drawn, weighed, pair, budget)


def write(title: str, sections: list[Section], sets: list[QuestionSet], folder: Path) -> None:
    """report.md and report.html; prints what the page leaves out."""
    files.write_text(folder / "report.md", markdown(title, sections))
    files.write_text(folder / "report.html", html_page.page(title, sections, sets))
    print("    report.md, figures/\n    report.html  opens without a network")
    for each in sets:
        print(f"        {each.name}: {explorer.trims(each)}")
