"""One file per `east VERB`: its flags, and `run(config, arguments)`. Nothing below this folder takes a verb's flags."""

VERBS = {
    "sample": "draw n responses to every training question",
    "grade": "read answers, mark them right or wrong, gather equal ones",
    "index": "choose training examples and store their tokens",
    "weigh": "turn cluster sizes into weights",
    "reference": "score every stored sequence with the starting model (DPO, KTO)",
    "train": "train on the weighted examples",
    "evaluate": "answer the test questions greedily and grade them",
    "report": "tables, figures and a page of a run's or a study's results",
    "rounds": "all of it: sample, grade, index, weigh, train, evaluate, T times",
    "study": "many runs: experiments over tasks and seeds, side by side",
    "check": "look at a run before a GPU is spent on it",
    "tiny": "make an untrained tiny model for the arithmetic task",
}
