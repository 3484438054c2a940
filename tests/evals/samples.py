"""Results and pictures to report on, and a page as a browser has it."""

import dataclasses
import html.parser
import itertools
import math
import re

import numpy as np

from evals.benchmarks import pages
from evals.evaluation import described
from evals.gallery import GalleryRow
from evals.rendering import number
from evals.results import Attribution, ControlNote, Group, LegibilityBin, MetricScore, Results
from evals.scoring import Case, Score, scores_of
from evals.sums import case_sums
from evals.wordpage import perfect

NAN = math.nan
EVIL = '<script>alert("x")</script> & \'"<img src=x onerror=alert(1)>'
STAGES = ("typeset", "reconstructed", "given_blueprint", "end_to_end")
EMPTY = ("meta", "img", "input", "br", "link")  # tags without an end
CONTROLS = ("blank", "constant_100", "constant_500", "typeset", "shuffled")


def made(run="demo", benchmark="pages", first=1):
    """Results in which no number occurs twice."""
    values = itertools.count(first)
    three = lambda: tuple(next(values) / 1000 for _ in range(3))  # noqa: E731
    metric = lambda source, **more: MetricScore(*three(), source, **more)  # noqa: E731
    scores = lambda: {"exact_words": Score(*three()), "extra_text": Score(*three())}  # noqa: E731
    lost = {"reader": 1011, "tokenizer": 1012, "decoder": 1013, "planner": 1014, "read": 1015}
    parts = [{who: n - 700 - i for i, (who, n) in enumerate(lost.items())}]
    parts += [{who: n - parts[0][who] for who, n in lost.items()}]
    bins = lambda: (  # noqa: E731
        LegibilityBin((4.0, 6.5), *three(), 2001), LegibilityBin((6.5, 11.0), *three(), 2002)
    )  # fmt: skip
    return Results(
        benchmark=benchmark, run=run, headline="exact_words",
        command="python scripts/evaluate.py --bundle 'runs/a b'",
        versions={"letterpress": "0ddba11", "jax": "0.10.2"},
        reader={"engine": "rapidocr", "version": "3.10.0", "detector": "det 00ff"},
        seed=7, images_per_prompt=3, num_cases=1234, num_pictures=3702,
        metrics={
            "exact_words": metric("Ours, <of words>."),
            "extra_text": metric("Ours too.", lower_is_better=True),
        },
        controls={name: scores() for name in CONTROLS}, missing=("a_0", "b_<2>"),
        groups={"domain": {"poster": Group(617, scores()), "shop": Group(616, scores())}},
        stages={stage: scores() for stage in STAGES},
        attribution=Attribution(lost, {"domain": {"poster": parts[0], "shop": parts[1]}}),
        legibility={stage: bins() for stage in STAGES[:3]},
        floors_px={"typeset": 4.44, "reconstructed": 5.55},
        control_notes={
            name: ControlNote(f"a page of {name}", 1234, ("a_0: choked",) * (name == "typeset"))
            for name in CONTROLS
        },
        plans={"max_iou": metric("Kikuchi 2021."), "overlap": metric("", lower_is_better=True)},
    )  # fmt: skip


def foreign(**changes):
    """Results of pictures that another system made."""
    bare = {"stages": {}, "attribution": None, "legibility": {}, "floors_px": {}, "plans": {}}
    if "controls" in changes:
        bare["control_notes"] = {}
    return dataclasses.replace(made(), **bare, **changes)


WORDS = [f"w{k}" for k in range(10)]


def measured(run, hits, **changes):
    """Results, and sums of cases, of one page of ten words for each of `hits`: ten words are read
    of it, so many of them right."""
    benchmark = pages.benchmark()
    benchmark = dataclasses.replace(benchmark, metrics=benchmark.metrics[:2])
    cases = [Case(f"page_{i}", f"a page {i}", (" ".join(WORDS),)) for i in range(len(hits))]
    readings = [[perfect([*WORDS[:n], *["?"] * (10 - n)])] for n in hits]
    sums = case_sums(benchmark, cases, readings)
    scores = described(benchmark, scores_of(benchmark.metrics, sums.rows))
    bare = {"metrics": scores, "headline": "word_f1", "controls": {}, "groups": {}}
    few = {"num_cases": len(hits), "num_pictures": len(hits), "images_per_prompt": 1, "seed": 0}
    return foreign(run=run, missing=(), **{**bare, **few, **changes}), sums


def row(i=0, read=("Big Dav", "noise"), **changes):
    picture = np.full((8, 12, 3), 40 * (i % 6), np.uint8)
    given = {
        "name": f"page_{i:03d}", "prompt": f"a page {i}", "targets": ("Big Day", "Here"),
        "pictures": dict.fromkeys(STAGES, picture), "reads": dict.fromkeys(STAGES, read),
        "groups": {"domain": "poster" if i % 2 else "shop"}, "plan": "<svg/>",
    }  # fmt: skip
    return GalleryRow(**{**given, **changes})


class Page(html.parser.HTMLParser):
    """What a browser would make of a page: its tags in pairs, its text, its attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.links = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and "script" not in self.open:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def numbers_of(results):
    """Every number of results, as pages say it."""
    scores = [*results.metrics.values(), *results.plans.values()]
    scores += [s for rows in (results.controls, results.stages) for r in rows.values()
               for s in r.values()]  # fmt: skip
    groups = [group for values in results.groups.values() for group in values.values()]
    scores += [s for group in groups for s in group.metrics.values()]
    bins = [part for several in results.legibility.values() for part in several]
    found = {number(v) for s in scores for v in (s.value, s.low, s.high)}
    found |= {number(v) for part in bins for v in (part.accuracy, part.low, part.high)}
    found |= {f"{edge:g}" for part in bins for edge in part.px}
    found |= {f"{part.num_words:,}" for part in bins}
    found |= {f"{group.num_cases:,}" for group in groups}
    found |= {f"{px:.3g}" for px in results.floors_px.values()}
    if results.attribution:
        by = [counts for values in results.attribution.by.values() for counts in values.values()]
        found |= {f"{n:,}" for counts in [results.attribution.total, *by] for n in counts.values()}
    whole = (results.seed, results.images_per_prompt, results.num_cases, results.num_pictures)
    return found | {f"{n:,}" for n in [*whole, len(results.missing)]}


def words_of(page):
    """Numbers and other words of a page's text, without what stands around them."""
    return {word for piece in re.split(r"[\s–]+", page.text) if (word := piece.strip("(),;:·"))}
