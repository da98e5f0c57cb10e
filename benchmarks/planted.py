"""Plant problems into real data sets, and count what `ptune check` finds of them.

    python benchmarks/planted.py --task sms=DATA --task clinc=DATA --cells FILE [--backbone NAME] [--report]

For each kind of finding some rows are made wrong, one kind at a time, in a sample of the training and validation rows.
The table has for each kind how many rows were planted, how many of them are found, how many rows were reported before
anything was planted (what the data set has by itself), and how many are reported now that are neither (false alarms).
One JSON line a kind is added to --cells, and a kind that is there is not repeated. --report writes the dated results
file from the cells.

With --backbone an adapter is trained on rows with wrong labels and odd texts, and these are looked for with it.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

Data = dict[str, list[dict[str, Any]]]
Place = tuple[str, int]  # split and row, from 1

FOREIGN = (
    "le train est parti sans nous et il ne reste plus une seule place pour la nuit",
    "je ne sais pas ce que vous avez fait avec les clés de la maison",
    "der zug ist schon weg und wir haben keinen platz mehr für die nacht",
    "ich weiß nicht was sie mit dem schlüssel von der wohnung gemacht haben",
    "no sé qué es lo que han hecho con las llaves de la casa y los papeles",
    "el tren se fue sin nosotros y no queda ni una plaza para esta noche",
    "il treno è partito senza di noi e non c'è più posto per la notte",
    "de trein is al weg en er is geen plaats meer voor ons met het hele gezin",
    "o trem já foi embora e não há mais lugar para nós com as crianças",
    "поезд уже ушёл, и свободных мест больше нет",
    "火车已经开走了，没有座位了",
    "電車はもう出てしまって席がありません",
)
ODD = (
    "def f(x): return [y ** 2 for y in x if y % 2]",
    "0x7f 0x45 0x4c 0x46 0x02 0x01 0x01 0x00 0x00",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "lorem ipsum dolor sit amet consectetur adipiscing elit",
    "SELECT name, SUM(price) FROM orders GROUP BY name HAVING SUM(price) > 10;",
    "qwz plk vbn xcf rty ghj mnb zxc",
    "mitochondrial ribosomes translate thirteen polypeptides of the respiratory chain",
    "preheat the oven, whisk four egg whites and fold in the flour",
    "1. e4 e5 2. Nf3 Nc6 3. Bb5 a6 4. Ba4 Nf6",
    "the integral of a holomorphic function along a closed curve is zero",
    "поезд уже ушёл, и свободных мест больше нет",
    "🙂 🎉 🚀 🙂 🎉 🚀 🙂",
)
ACCENTED = ("café", "naïve", "déjà vu", "Zürich", "señor", "it’s", "“so”", "– yes –", "crème brûlée", "50 €")


def plant_missing(data: Data, rows: list[int], _random: random.Random) -> set[Place]:
    for row in rows:
        data["train"][row]["text"] = "" if row % 2 else "  "
    return {("train", row + 1) for row in rows}


def plant_repeats(data: Data, rows: list[int], _random: random.Random) -> set[Place]:
    """Append copies with other blanks and letter case."""
    return _append(data, [{**data["train"][row], "text": f" {data['train'][row]['text'].upper()}"} for row in rows])


def plant_near_repeats(data: Data, rows: list[int], rand: random.Random) -> set[Place]:
    """Append copies of texts with at least ten words, without one of them."""
    long = [row for row in rows if len(data["train"][row]["text"].split()) >= 10]
    return _append(data, [{**data["train"][row], "text": _without_a_word(data, row, rand)} for row in long])


def plant_leaks(data: Data, rows: list[int], _random: random.Random) -> set[Place]:
    """Copy training rows to the validation rows. The training rows are to be found."""
    data["validation"] += [dict(data["train"][row]) for row in rows]
    return {("train", row + 1) for row in rows}


def plant_near_leaks(data: Data, rows: list[int], rand: random.Random) -> set[Place]:
    long = [row for row in rows if len(data["train"][row]["text"].split()) >= 10]
    data["validation"] += [{**data["train"][row], "text": _without_a_word(data, row, rand)} for row in long]
    return {("train", row + 1) for row in long}


def plant_conflicts(data: Data, rows: list[int], rand: random.Random) -> set[Place]:
    new = [{**data["train"][row], "label": _other(data, data["train"][row], rand)} for row in rows]
    return _append(data, new) | {("train", row + 1) for row in rows}


def plant_label_spellings(data: Data, rows: list[int], rand: random.Random) -> set[Place]:
    """Write labels in capitals, with a blank for a line, or with a letter missing."""
    for row in rows:
        label = data["train"][row]["label"]
        ways = [label.upper() if label.upper() != label else label.lower(), f"{label[:1].swapcase()}{label[1:]}"]
        if len(label) > 6:
            ways.append(label[:3] + label[4:])
        data["train"][row]["label"] = rand.choice(ways)
    return {("train", row + 1) for row in rows}


def plant_unknown_labels(data: Data, _rows: list[int], _random: random.Random) -> set[Place]:
    for row in range(5):
        data["validation"][row]["label"] = "zzz"
    return {("validation", row + 1) for row in range(5)}


def plant_rare_labels(data: Data, rows: list[int], _random: random.Random) -> set[Place]:
    for row in rows[:5]:
        data["train"][row]["label"] = "zzz"
    return {("train", row + 1) for row in rows[:5]}


def plant_no_words(data: Data, rows: list[int], rand: random.Random) -> set[Place]:
    for row in rows:
        data["train"][row]["text"] = rand.choice(["...", "?!", "--", ":-)", "🙂🙂"])
    return {("train", row + 1) for row in rows}


def plant_long_texts(data: Data, rows: list[int], _random: random.Random) -> set[Place]:
    """Join texts, as a missing quotation mark does."""
    for row in rows[:5]:
        joined = "\n".join(other["text"] for other in data["train"][row : row + 60])
        data["train"][row]["text"] = (joined * 40)[:8000]
    return {("train", row + 1) for row in rows[:5]}


def plant_encoding(data: Data, rows: list[int], rand: random.Random) -> set[Place]:
    """Decode UTF-8 as Windows-1252."""
    for row in rows:
        text = f"{data['train'][row]['text']} {rand.choice(ACCENTED)}"
        wrong = re.sub(r"[^\x00-\x7f]", lambda match: match[0].encode().decode("cp1252", "replace"), text)
        data["train"][row]["text"] = wrong if "\ufffd" not in wrong else text.encode().decode("latin-1")
    return {("train", row + 1) for row in rows}


def plant_markup(data: Data, rows: list[int], rand: random.Random) -> set[Place]:
    for row in rows:
        data["train"][row]["text"] += rand.choice([" &amp; more", "<br />", " &quot;ok&quot;", " <b>now</b>", "&#39;"])
    return {("train", row + 1) for row in rows}


def plant_language(data: Data, rows: list[int], _random: random.Random) -> set[Place]:
    for number, row in enumerate(rows):
        data["train"][row]["text"] = FOREIGN[number % len(FOREIGN)]
    return {("train", row + 1) for row in rows}


def plant_giveaways(data: Data, _rows: list[int], _random: random.Random) -> set[Place]:
    """Add a source for each label, an id with the label in it, numbers in the order of labels, and a word.

    What is found has no rows; the places stand for the four.
    """
    order = sorted(range(len(data["train"])), key=lambda row: data["train"][row]["label"])
    first = Counter(row["label"] for row in data["train"]).most_common(1)[0][0]
    for place, row in enumerate(order):
        cells = data["train"][row]
        label = cells["label"]
        cells |= {"source": f"from {label}", "key": f"{label}-{row}", "number": 1000 + place}
        cells["text"] = f"xqz {cells['text']}" if label == first else cells["text"]
    for row, cells in enumerate(data["validation"]):
        cells |= {"source": "", "key": "", "number": row}
    return {("train", number) for number in range(1, 5)}


PLANTS: dict[str, Callable[[Data, list[int], random.Random], set[Place]]] = {
    name.removeprefix("plant_"): function for name, function in list(globals().items()) if name.startswith("plant_")
}


def measure(data: Data, kind: str, count: int, seed: int = 0) -> dict[str, Any]:
    """Plant one kind into a copy of the data, and return the counts."""
    import ptune

    rand = random.Random(seed)
    planted = {split: [dict(row) for row in rows] for split, rows in data.items()}
    rows = sorted(rand.sample(range(len(planted["train"])), count))
    places = PLANTS[kind](planted, rows, rand)
    before, after = (_found(ptune.check_data(source), kind) for source in (data, planted))
    if kind == "giveaways":
        before, after = ({("train", number) for number in range(1, len(found) + 1)} for found in (before, after))
    return {
        "kind": kind,
        "planted": len(places),
        "found": len(places & after),
        "already there": len(before),
        "false alarms": len(after - places - before),
    }


def _found(check: Any, kind: str) -> set[Place]:
    """The rows that are reported; for findings without rows a number for each finding."""
    found: set[Place] = set()
    for number, finding in enumerate(check.findings):
        if finding.kind == kind:
            found |= {(row.split, row.number) for row in finding.rows} or {("finding", number)}
            for group in finding.groups if kind in ("conflicts",) else ():
                found |= {(row.split, row.number) for row in group}
    return found


def _append(data: Data, rows: list[dict[str, Any]]) -> set[Place]:
    start = len(data["train"])
    data["train"] += rows
    return {("train", start + number) for number in range(1, len(rows) + 1)}


def _without_a_word(data: Data, row: int, rand: random.Random) -> str:
    words = data["train"][row]["text"].split()
    del words[rand.choice([0, len(words) - 1])]
    return " ".join(words)


def _other(data: Data, cells: dict[str, Any], rand: random.Random) -> str:
    return rand.choice(sorted({other["label"] for other in data["train"]} - {cells["label"]}))


def measure_with_adapter(data: Data, backbone: str, share: float, epochs: int, seed: int = 0) -> list[dict[str, Any]]:
    """Give some rows a wrong label, and some training rows an odd text, train on them, and look for them."""
    import ptune

    rand = random.Random(seed)
    planted = {split: [dict(row) for row in rows] for split, rows in data.items()}
    wrong: set[Place] = set()
    odd: set[Place] = set()
    for split, rows in planted.items():
        chosen = rand.sample(range(len(rows)), int(share * len(rows)) + len(ODD))
        for number, row in enumerate(chosen):
            if number >= len(ODD):
                rows[row]["label"] = _other(planted, rows[row], rand)
                wrong.add((split, row + 1))
            elif split == "train":
                rows[row]["text"] = ODD[number]
                odd.add((split, row + 1))
    with tempfile.TemporaryDirectory() as folder:
        loaded = ptune.load_data(planted)
        model = ptune.PromptClassifier.for_data(backbone, loaded)
        result = ptune.train(model, loaded, ptune.TrainConfig(epochs=epochs), output=Path(folder) / "adapter")
    check = ptune.check_data(planted, classifier=result.classifier)
    lines = []
    for kind, places in (("label_errors", wrong), ("outliers", odd)):
        found = _found(check, kind)
        lines.append(
            {"kind": kind, "planted": len(places), "found": len(places & found), "already there": None,
             "false alarms": len(found - places)}
        )  # fmt: skip
    return lines


def read(source: str, most: int, seed: int = 0) -> Data:
    """Return a sample of the training and validation rows of a data set, with the names of their labels."""
    import ptune

    data = ptune.load_data(source, seed=seed, max_train_rows=most, max_validation_rows=most // 4)
    sample: Data = {}
    for name in ("train", "validation"):
        split = data.split(name)
        sample[name] = [
            {"text": text, "label": data.labels[label]}
            for text, label in zip(split.texts, split.labels or [], strict=True)
        ]
    return sample


def main() -> None:
    from common import add_cell, facts, finished, write_results

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", default=[], metavar="NAME=DATA")
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--count", type=int, default=60, help="rows to plant of each kind")
    parser.add_argument("--backbone", help="also train an adapter, and look for label errors and outliers")
    parser.add_argument("--share", type=float, default=0.05, help="share of wrong labels with --backbone")
    parser.add_argument("--adapter-rows", type=int, default=3000, help="training rows of that adapter")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of that adapter")
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--report", action="store_true", help="write the results file and run nothing")
    options = parser.parse_args()
    if options.report:
        write_results("planted", {"facts": facts(), "table": finished(options.cells)})
        return
    for task in options.task:
        name, _, source = task.partition("=")
        done = {cell["kind"] for cell in finished(options.cells) if cell["data"] == name}
        data = read(source, options.rows)
        for kind in (kind for kind in PLANTS if kind not in done):
            add_cell(options.cells, {"data": name, **measure(data, kind, options.count)})
        if options.backbone and not {"label_errors", "outliers"} <= done:
            data = read(source, options.adapter_rows)
            for line in measure_with_adapter(data, options.backbone, options.share, options.epochs):
                add_cell(options.cells, {"data": name, **line})


if __name__ == "__main__":
    main()
