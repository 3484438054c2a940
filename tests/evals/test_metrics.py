"""The published scores by hand and against slow implementations, and what every metric keeps to."""

import difflib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from evals.metrics import published as p
from evals.metrics.layout import LAYOUT
from evals.metrics.matching import nearest_by_blocks
from evals.metrics.strict import STRICT
from evals.readers import ReadLine
from evals.scoring import Case, Metric, Reading, score, statistics

PUBLISHED = tuple(m for m in vars(p).values() if isinstance(m, Metric))
EVERY = (*PUBLISHED, *STRICT, *LAYOUT)
OURS = {metric.name: metric for metric in STRICT}
TOP_LEFT = ((0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.0, 0.5))


def wanted(*targets, language="en"):
    return Case("case", "", targets, quads=(TOP_LEFT,) * len(targets), language=language)


def page(*strings):
    """A page whose lines stand one below the other."""
    lines = [ReadLine(s, (10.0, 20.0 * i, 80.0, 16.0), 1.0) for i, s in enumerate(strings)]
    return Reading(tuple(lines), (100, 100))


def crops(*strings):
    return Reading((), (100, 100), crops=strings)


def scored(metric, *pictures):
    """The score of (case, reading) pairs together."""
    return float(metric.value(np.sum([metric.measure(*pair) for pair in pictures], axis=0)))


def test_longtext_bench_counts_words_or_chinese_characters():
    case = wanted("FRESH BREWS, EVERY MORNING, EVERY DAY", "Since 1-2")  # 8 words, the last one 12
    read = page("morning every extra", "Brews! fresh day", "since 1 2")  # all but one every and 12
    assert scored(p.LONGTEXT_RECALL, (case, read)) == 6 / 8
    chinese = wanted("欢迎光临 A店", language="zh")
    assert scored(p.LONGTEXT_RECALL, (chinese, page("光 临a", "店，欢"))) == 4 / 6
    assert scored(p.LONGTEXT_RECALL, (case, read), (wanted("a", "b"), page())) == 6 / 10  # micro


def test_oneig_bench_multiplies_what_its_averages_lack():
    right, folded = (
        (wanted("Big", "Sale!"), page("Big Sale")),
        (wanted("Big Sale"), page("big sale")),
    )
    assert scored(p.ONEIG_EDIT_DISTANCE, right, folded) == 1  # 0 and 2
    assert scored(p.ONEIG_COMPLETE, right, folded) == 0.5
    assert scored(p.ONEIG_WORD_ACCURACY, right, folded) == 0.5  # 2 of 4
    assert scored(p.ONEIG_TEXT, right, folded) == pytest.approx(1 - 1 * 0.5 * 0.5 / 100)
    chinese = wanted("你 好A", language="zh"), page("你坏 A")  # without blanks one edit, 2 of 3
    assert scored(p.ONEIG_EDIT_DISTANCE, chinese) == 1
    assert scored(p.ONEIG_TEXT, chinese) == pytest.approx(1 - 1 * 1 * (1 / 3) / 50)
    assert scored(p.ONEIG_TEXT, (wanted("a" * 150), page())) == 0  # 150 edits count as 100


def test_cvtg_takes_a_word_for_as_many_as_ask_for_it():
    case = wanted("Open 24/7", "OPEN")
    assert scored(p.CVTG_WORD_ACCURACY, (case, page("opem 24/7"))) == 1 / 3
    assert scored(p.CVTG_NED, (case, page("opem 24/7"))) == pytest.approx(2.5 / 3, abs=1e-5)
    assert scored(p.CVTG_WORD_ACCURACY, (case, page("oPen"))) == 2 / 3
    assert scored(p.CVTG_NED, (case, page())) == pytest.approx(0, abs=1e-5)


def test_anytext_compares_each_crop_with_its_line():
    case = wanted("Sale", "now")
    assert scored(p.ANYTEXT_SENTENCE_ACCURACY, (case, crops("Sale", "mow"))) == 0.5
    near = scored(p.ANYTEXT_NED, (case, crops("Sale", "mow")))
    assert near == pytest.approx((1 + 2 / 3) / 2, abs=1e-5)
    assert scored(p.ANYTEXT_SENTENCE_ACCURACY, (case, crops("now", "Sale"))) == 0
    assert scored(p.ANYTEXT_SENTENCE_ACCURACY, (case, page())) == 0  # a missing picture
    with pytest.raises(ValueError, match=r"2 targets, 2 quads and 0 crops.*crops=True"):
        p.ANYTEXT_NED.measure(case, page("Sale now"))


def test_lex_and_tiif_pair_words():
    extra = wanted("Communicate", "Execute"), page("COMMUNICAte", "Execute it")  # one left over
    short = wanted("abcd", "wxyz"), page("abcx")  # a quarter, and one left over
    assert scored(p.LEX_PNED, extra) == 1 and scored(p.LEX_PNED, extra, short) == (1 + 1.25) / 2
    assert scored(p.LEX_RECALL, extra, short) == (1 + 0.5) / 2
    assert scored(p.TIIF_RECALL, short) == 0.5
    assert scored(p.TIIF_GNED, extra, short) == pytest.approx((1 / 3 + 1.25 / 2) / 2)
    assert scored(p.LEX_PNED, (wanted("ab", "cd"), page())) == 2
    assert scored(p.LEX_PNED, (wanted("ab", "cd"), page("ab  cd"))) == 1  # the word between blanks


def test_strict_bench_errs_by_path_character_and_word():
    substituted = wanted("ab cd"), page("ab", "ce ")
    inserted = wanted("ab"), page("abxx")
    for metric, first, second in (
        (p.STRICT_NED, 1 / 5, 2 / 4), (p.STRICT_CER, 1 / 5, 2 / 2), (p.STRICT_WER, 1 / 2, 1),
    ):  # fmt: skip
        assert scored(metric, substituted) == first and scored(metric, inserted) == second
        assert scored(metric, substituted, inserted) == pytest.approx((first + second) / 2)
        assert scored(metric, (wanted("ab"), page())) == 1


def test_simple_bench_takes_the_nearest_item():
    hope = wanted("Hope"), page("hope", "Hop", "Hope so")
    assert scored(p.SIMPLE_ACCURACY, hope) == 0 and scored(p.SIMPLE_ACCURACY_FOLDED, hope) == 1
    assert scored(p.SIMPLE_EDIT_DISTANCE, hope) == 1
    assert scored(p.SIMPLE_EDIT_DISTANCE, hope, (wanted("Hope"), page())) == (1 + 4) / 2
    assert scored(p.SIMPLE_ACCURACY, hope, (wanted("Hope"), page("Hope"))) == 0.5


def test_tokbench_averages_small_medium_and_large_words():
    def word(width_px, height_px):  # on a picture of 100 x 50
        x, y = width_px / 100, height_px / 50
        return ((0, 0), (x, 0), (x, y), (0, y))

    quads = (word(4, 2), word(10, 6), word(5, 14), word(40, 20), word(40, 20))
    case = Case("case", "", ("abcd",) * 5, quads=quads)  # scales .01, .025, .035, .1 and .1
    read = Reading((), (100, 50), crops=("none", "abcd", "abcx", "abcd", "wxyz"))
    assert scored(p.TOKBENCH_ACCURACY, (case, read)) == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert scored(p.TOKBENCH_NED, (case, read)) == pytest.approx((1 + 3 / 4 + 1 / 2) / 3)
    large = Case("case", "", ("abcd",), quads=(word(40, 20),))
    assert scored(p.TOKBENCH_ACCURACY, (large, Reading((), (100, 50), crops=("abcd",)))) == 1
    accuracy_512, _ = p.tokbench(512)
    assert accuracy_512.name == "tokbench_accuracy_512"
    assert scored(accuracy_512, (case, read)) == pytest.approx((0 + 1 + 1 / 3) / 3)


def test_mario_eval_averages_precision_and_recall_of_pictures():
    few, many = (wanted("Big Sale now"), page("sale big")), (wanted("Hi"), page("hi there you hi"))
    assert scored(p.MARIO_PRECISION, few, many) == (1 + 1 / 4) / 2
    assert scored(p.MARIO_RECALL, few, many) == pytest.approx((2 / 3 + 1) / 2)
    assert scored(p.MARIO_F1, few, many) == pytest.approx(5 / 7)  # of 5/8 and 5/6
    assert scored(p.MARIO_ACCURACY, few, many, (wanted("A b", "c"), page("c b", "a"))) == 1 / 3
    assert scored(p.MARIO_F1, (wanted("Hi"), page())) == 0


def slow_distance(a, b):
    """Edit distance over the longer length, by the textbook's table."""
    table = np.zeros((len(a) + 1, len(b) + 1))
    table[:, 0], table[0] = np.arange(len(a) + 1), np.arange(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            kept = table[i - 1, j - 1] + (a[i - 1] != b[j - 1])
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, kept)
    return table[-1, -1] / max(len(a), len(b), 1)


WORDS = st.lists(st.text("abAB", min_size=1, max_size=5), min_size=1, max_size=5)


@given(WORDS, WORDS)
def test_lex_agrees_with_a_slow_implementation(targets, read):
    asked, found = [w.lower() for w in targets], [w.lower() for w in read]
    costs = np.array([[slow_distance(a, b) for b in found] for a in asked])
    pairs = linear_sum_assignment(costs)
    pned = costs[pairs].sum() + abs(len(asked) - len(found))
    taken = set()
    for row in costs:
        free = [j for j, cost in enumerate(row) if cost <= 0.3 and j not in taken]
        taken.update(free[:1])
    picture = wanted(*targets), page(" ".join(read[:2]), *read[2:])
    assert scored(p.LEX_PNED, picture) == pytest.approx(pned, abs=1e-9)
    assert scored(p.LEX_RECALL, picture) == pytest.approx(len(taken) / len(asked), abs=1e-9)
    gned = pned / max(len(asked), len(found))
    assert scored(p.TIIF_GNED, picture) == pytest.approx(gned, abs=1e-9)


@given(st.text("abc", min_size=1, max_size=6), st.lists(st.text("abc", max_size=6), min_size=1))
def test_the_nearest_word_is_the_one_that_difflib_gives(word, read):
    assert [nearest_by_blocks(word, read)] == difflib.get_close_matches(word, read, n=1, cutoff=0)


def pictures():
    """Cases and two readings each, whole and in crops, that are right, wrong and empty in turn."""
    cases = [wanted(f"Big Sale {i}", "now or never") for i in range(4)]
    whole = [
        [page("Big Sale", str(i), "now or nexer"), page("extra", "never or")] for i in range(4)
    ]
    whole[2][1] = page()
    several = [[crops(f"Big Sale {i}", "now"), crops("", "now or never")] for i in range(4)]
    return cases, whole, several


def cropped(metric):
    return metric.name.startswith(("anytext", "tokbench"))


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_a_score_is_a_function_of_sums(metric):
    cases, whole, several = pictures()
    rows = statistics(metric, cases, several if cropped(metric) else whole)
    total = metric.value(rows.sum(axis=0))
    halves = np.stack([rows[:2].sum(axis=0), rows[2:].sum(axis=0)])
    assert metric.value(halves.sum(axis=0)) == pytest.approx(total, nan_ok=True)
    assert metric.value(7 * rows.sum(axis=0)) == pytest.approx(total, nan_ok=True)
    grid = np.broadcast_to(halves[:, None], (2, 3, rows.shape[1]))
    assert metric.value(grid).shape == (2, 3) and np.shape(total) == ()
    for half, value in zip(halves, metric.value(halves), strict=True):
        assert value == pytest.approx(metric.value(half), nan_ok=True)
    assert np.isnan(metric.value(np.zeros(rows.shape[1])))
    blueprints = metric.name in ("line_count", "colour_agreement")  # which these cases lack
    assert np.isfinite(total) != blueprints and ":" in metric.source


@pytest.mark.parametrize("metric", (*PUBLISHED, *STRICT, LAYOUT[0]), ids=lambda m: m.name)
def test_the_better_direction_is_known(metric):
    cases, _, _ = pictures()
    if cropped(metric):
        right, wrong = [crops(*c.targets) for c in cases], [crops("x", "y") for _ in cases]
    else:
        right, wrong = [page(*c.targets) for c in cases], [page("never Sale", "qq") for _ in cases]
    best, worst = (
        score([metric], cases, [[r] for r in readings], num_resamples=20)[metric.name].value
        for readings in (right, wrong)
    )
    assert best < worst if metric.lower_is_better else best > worst


RECALL_ONLY = (p.LONGTEXT_RECALL, p.CVTG_WORD_ACCURACY, p.LEX_RECALL, p.MARIO_RECALL)
STRICT_IN = {
    "case": (
        "exact_element_accuracy", "exact_element_accuracy_unpunctuated", "exact_word_accuracy",
        "word_precision", "word_f1", "ned", "character_error_rate",
    ),
    "order": ("exact_element_accuracy", "ned", "character_error_rate", "reading_order"),
    "extra text": (
        "word_precision", "word_f1", "extra_text_rate", "ned", "character_error_rate",
    ),
}  # fmt: skip
READ_AS = {
    "case": page("FRESH BREWS", "Every Morning"),
    "order": page("Every Morning", "brews Fresh"),
    "extra text": page("Fresh brews", "Every Morning", "Lorem ipsum"),
}


@pytest.mark.parametrize("change", STRICT_IN)
def test_strict_metrics_see_what_recall_forgives(change):
    case = wanted("Fresh brews", "Every Morning")
    right, changed = (case, page("Fresh brews", "Every Morning")), (case, READ_AS[change])
    for metric in RECALL_ONLY:
        assert scored(metric, changed) == scored(metric, right) == 1
    for name in STRICT_IN[change]:
        best = 0 if OURS[name].lower_is_better else 1
        assert scored(OURS[name], right) == best and abs(scored(OURS[name], changed) - best) > 0.1
    assert scored(p.LEX_PNED, changed) == (2 if change == "extra text" else 0)
