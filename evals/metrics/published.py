"""The scores of published benchmarks, as their evaluators compute them.

Each `source` names the repository whose code is the definition. Ours differ in the reader above
all: theirs is named beside them, ours is whichever made the `Reading`, so compare a value with a
published one only beside the same reader's score of typeset targets. A picture on which nothing was
read stays in every denominator. How targets are taken from prompts, and which of them count, is
the benchmarks' part.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from rapidfuzz.distance import Levenshtein

from evals.metrics.elements import crop_pairs, strings_of
from evals.metrics.matching import (
    cheapest_pairing,
    edit_costs,
    nearest_by_blocks,
    num_near,
    path_distance,
    similarity,
)
from evals.metrics.words import num_shared
from evals.scoring import Case, Metric, Reading, Statistics, share

_NOT_COMPARED = re.compile(r"[^\u4e00-\u9fa5a-zA-Z0-9\sàâäéèêëîïôöùûüçÀÂÄÉÈÊËÎÏÔÖÙÛÜÇ]")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
ONEIG_MOST_EDITS = {"en": 100, "zh": 50}
LEX_NEAR = 0.3
TOKBENCH_SCALES = {256: (0.02, 0.03, 0.04), 512: (0.01, 0.02, 0.03), 1024: (0.005, 0.01, 0.02)}


@functools.lru_cache(maxsize=1 << 14)
def compared(string: str) -> str:
    """What LongText-Bench and OneIG-Bench keep of a string: letters (Latin ones with French
    accents, Chinese ones to U+9FA5), digits, and blanks in runs of one. The rest is deleted, not
    replaced: 1-2 becomes 12."""
    return " ".join(_NOT_COMPARED.sub("", string).split())


def _joined(case: Case, reading: Reading) -> tuple[str, str]:
    return compared(" ".join(case.targets)), compared(" ".join(strings_of(reading)))


def longtext_hits(case: Case, reading: Reading) -> tuple[float, float]:
    """(words or, in zh, characters both asked for and read, those asked for), as multisets; words
    in lower case, characters as they are."""
    wanted, read = _joined(case, reading)
    if case.language == "zh":
        wanted, read = wanted.replace(" ", ""), read.replace(" ", "")
        return num_shared(wanted, read), len(wanted)
    words = wanted.lower().split()
    return num_shared(words, read.lower().split()), len(words)


LONGTEXT_RECALL = Metric(
    "longtext_recall",
    longtext_hits,
    share,
    "LongText-Bench (X-Omni-Team/X-Omni, textbench/summary_scores.py; read by Qwen2.5-VL-7B, told "
    "not to repeat itself): multiset recall over all pictures; case (en), punctuation, order and "
    "extra text do not count",
)


def oneig_parts(case: Case, reading: Reading) -> tuple[float, ...]:
    """(edit distance, whether it is 0, pictures, words in common, words asked for, M), case kept.
    Strings with a Chinese letter in them lose their blanks and have characters for words."""
    wanted, read = _joined(case, reading)
    chinese = bool(_CHINESE.search(wanted))
    wanted, read = (s.replace(" ", "") if _CHINESE.search(s) else s for s in (wanted, read))
    words = (wanted, read) if chinese else (wanted.split(), read.split())
    edits = Levenshtein.distance(wanted, read)
    most = ONEIG_MOST_EDITS[case.language]
    return edits, float(edits == 0), 1.0, num_shared(*words), len(words[0]), most


def _ratio(part: int, whole: int) -> Callable[[Statistics], Float[np.ndarray, ...]]:
    return lambda sums: share(sums[..., [part, whole]])


def _oneig_text(sums: Statistics) -> Float[np.ndarray, ...]:
    edits, complete, accuracy, most = (
        _ratio(part, whole)(sums) for part, whole in ((0, 2), (1, 2), (3, 4), (5, 2))
    )
    return 1 - np.minimum(most, edits) * (1 - complete) * (1 - accuracy) / most


def _oneig(
    name: str, value: Callable[[Statistics], Float[np.ndarray, ...]], said: str, **more: bool
) -> Metric:
    source = "OneIG-Bench (OneIG-Bench/OneIG-Benchmark, scripts/text; read by Qwen2.5-VL-7B)"
    return Metric(f"oneig_{name}", oneig_parts, value, f"{source}: {said}", **more)


ONEIG_EDIT_DISTANCE = _oneig(
    "edit_distance", _ratio(0, 2), "ED, mean edits of whole texts", lower_is_better=True
)
ONEIG_COMPLETE = _oneig("complete", _ratio(1, 2), "CR, the share of pictures without an edit")
ONEIG_WORD_ACCURACY = _oneig("word_accuracy", _ratio(3, 4), "WAC, multiset recall of all words")
ONEIG_TEXT = _oneig(
    "text",
    _oneig_text,
    "1 - min(M, ED) (1 - CR) (1 - WAC) / M of the averages, M 100 (en) or 50 (zh); theirs deletes "
    "the brackets of the targets' list as text, ours never adds them",
)


def _lower(strings: Sequence[str], blank: str | None = None) -> list[str]:
    return [word for string in strings for word in string.lower().split(blank)]


def cvtg_hits(case: Case, reading: Reading) -> tuple[float, float]:
    """(words that occur among the read ones, words), in lower case, punctuation attached; a read
    word may serve many."""
    wanted, read = _lower(case.targets), set(_lower(strings_of(reading)))
    return sum(word in read for word in wanted), len(wanted)


def cvtg_nearness(case: Case, reading: Reading) -> tuple[float, float]:
    """(summed similarity of each word to the read one nearest by blocks, words), likewise; nothing
    read is one empty word."""
    wanted = _lower(case.targets)
    read = dict.fromkeys(_lower(strings_of(reading)) or [""])
    return sum(similarity(word, nearest_by_blocks(word, read)) for word in wanted), len(wanted)


_CVTG = "CVTG-2K (NJU-PCALab/TextCrafter, unified_metrics_eval.py; read by PaddleOCR en): "
CVTG_WORD_ACCURACY = Metric(
    "cvtg_word_accuracy",
    cvtg_hits,
    share,
    _CVTG + "words asked for that occur anywhere among the read ones, case folded",
)
CVTG_NED = Metric(
    "cvtg_ned",
    cvtg_nearness,
    share,
    _CVTG + "mean over words of 1 - edits over the longer length, to difflib's closest read word",
)


def anytext_lines(case: Case, reading: Reading) -> tuple[float, float, float]:
    """(lines whose crop reads exactly so, summed similarity of lines and crops, lines), case
    kept."""
    pairs = crop_pairs(case, reading)
    return sum(a == b for a, b in pairs), sum(similarity(a, b) for a, b in pairs), len(pairs)


_ANYTEXT = "AnyText-benchmark (tyxsspa/AnyText, eval/eval_dgocr.py; read by DuGuang in each box): "
ANYTEXT_SENTENCE_ACCURACY = Metric(
    "anytext_sentence_accuracy",
    anytext_lines,
    _ratio(0, 2),
    _ANYTEXT + "Sen.ACC, lines read exactly over lines",
)
ANYTEXT_NED = Metric(
    "anytext_ned",
    anytext_lines,
    _ratio(1, 2),
    _ANYTEXT + "mean over lines of 1 - edits over the longer length; theirs takes all characters "
    "that its recogniser lacks for one",
)


def lex_costs(case: Case, reading: Reading) -> Float[np.ndarray, "W R"]:
    """Normalised edit distances of the words asked for and read, in lower case. As there, lines are
    split at every single blank: two in a row leave an empty word, which is one too many."""
    return edit_costs(_lower(case.targets, " "), _lower(strings_of(reading), " "))


def lex_pned(case: Case, reading: Reading) -> tuple[float, float]:
    """(cost of the cheapest pairing plus 1 for each word left over, pictures)."""
    return cheapest_pairing(lex_costs(case, reading)), 1.0


def lex_recall(case: Case, reading: Reading) -> tuple[float, float]:
    """(share of words with a read one near, pictures); nothing for a case without words."""
    costs = lex_costs(case, reading)
    return (num_near(costs, LEX_NEAR) / len(costs), 1.0) if len(costs) else (0.0, 0.0)


def tiif_gned(case: Case, reading: Reading) -> tuple[float, float]:
    """(PNED over the number of words asked for or read, whichever is more; pictures)."""
    costs = lex_costs(case, reading)
    return cheapest_pairing(costs) / max(*costs.shape, 1), 1.0


_LEX = "LeX-Bench (zhaoshitian/LeX-Art, evaluation/cal_pned_and_recall.py; read by PaddleOCR v3): "
_TIIF = "TIIF-Bench (A113N-W3I/TIIF-Bench, eval/cal_gned_and_recall_models.py; by PaddleOCR en): "
_NEAR = "mean over pictures of the share of words that find a read one within 0.3, first come first"
LEX_PNED = Metric(
    "lex_pned",
    lex_pned,
    share,
    _LEX + "mean over pictures of the least edit costs that pair words, plus 1 for each left over; "
    "not normalised, so a level's values cannot be compared with another's",
    lower_is_better=True,
)
LEX_RECALL = Metric("lex_recall", lex_recall, share, _LEX + _NEAR)
TIIF_GNED = Metric(
    "tiif_gned",
    tiif_gned,
    share,
    _TIIF + "mean over pictures of LeX-Bench's PNED over the greater number of words",
    lower_is_better=True,
)
TIIF_RECALL = Metric("tiif_recall", lex_recall, share, _TIIF + _NEAR)


@functools.lru_cache(maxsize=1 << 10)
def _document_errors(wanted: str, read: str) -> tuple[float, float, float]:
    """Normalised edit distance, character and word error rate of a document; each is 1 when one of
    the two is empty, 0 when both are."""
    if not wanted or not read:
        error = float(wanted != read)
        return error, error, error
    words = wanted.split(" ")
    return (
        path_distance(wanted, read),
        Levenshtein.distance(wanted, read) / len(wanted),
        Levenshtein.distance(words, read.split(" ")) / len(words),
    )


def document_error(case: Case, reading: Reading, *, which: int) -> tuple[float, float]:
    """(one of the errors of the whole text, pictures); only runs of blanks are folded."""
    wanted, read = (" ".join(" ".join(s).split()) for s in (case.targets, strings_of(reading)))
    return _document_errors(wanted, read)[which], 1.0


def _document(name: str, which: int, said: str) -> Metric:
    source = "STRICT (tianyu-z/STRICT-Bench, ocr/core.py; read by Tesseract, page mode 3): mean of "
    measure = functools.partial(document_error, which=which)
    return Metric(f"strict_{name}", measure, share, source + said, lower_is_better=True)


STRICT_NED = _document("ned", 0, "edits over the length of the edit path, a distance")
STRICT_CER = _document("cer", 1, "edits a character asked for, 1 where nothing was read")
STRICT_WER = _document("wer", 2, "edited words a word asked for, 1 where nothing was read")


def simple_items(case: Case, reading: Reading) -> tuple[float, float, float, float]:
    """(targets that equal an item, that do in lower case, summed edits to the nearest item,
    targets); an item is a line as it was read, and nothing read is one empty item."""
    items = strings_of(reading) or ("",)
    lower = {item.lower() for item in items}
    edits = sum(min(Levenshtein.distance(t, item) for item in items) for t in case.targets)
    exact = sum(target in items for target in case.targets)
    return exact, sum(t.lower() in lower for t in case.targets), edits, len(case.targets)


_SIMPLE = "SimpleBench (AIGText/GlyphControl-release, ocr_acc.py; read by EasyOCR): "
SIMPLE_ACCURACY = Metric(
    "simple_accuracy", simple_items, _ratio(0, 3), _SIMPLE + "targets that equal an item"
)
SIMPLE_ACCURACY_FOLDED = Metric(
    "simple_accuracy_folded", simple_items, _ratio(1, 3), _SIMPLE + "the same in lower case"
)
SIMPLE_EDIT_DISTANCE = Metric(
    "simple_edit_distance",
    simple_items,
    _ratio(2, 3),
    _SIMPLE + "LD, mean edits to the nearest item; theirs leaves out pictures without any",
    lower_is_better=True,
)


@dataclasses.dataclass(frozen=True)
class WordsByScale:
    """TokBench's measure: of small, medium and large words, which a scale tells apart, (exact,
    summed 1 - edits over the longer length, words) each.

    A word's scale is its box's longer side over its number of characters and over the picture's
    longer side; words under the first of `edges` do not count.
    """

    edges: tuple[float, float, float]

    def __call__(self, case: Case, reading: Reading) -> Sequence[float]:
        sums = np.zeros((3, 3))
        pairs = crop_pairs(case, reading)
        for (wanted, read), quad in zip(pairs, case.quads, strict=True):
            corners = np.asarray(quad) * reading.size_px
            side_px = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1).max()
            scale = side_px / max(len(wanted), 1) / max(reading.size_px)
            size = np.searchsorted(self.edges, scale, side="right") - 1
            if size >= 0:
                near = Levenshtein.normalized_similarity(wanted, read)
                sums[size] += (wanted == read, near, 1)
        return sums.ravel().tolist()


def _mean_of_sizes(sums: Statistics, which: int) -> Float[np.ndarray, ...]:
    sizes = sums.reshape(*sums.shape[:-1], 3, 3)
    shares = share(sizes[..., [which, 2]])
    held = np.isfinite(shares)
    return share(np.stack([np.where(held, shares, 0).sum(-1), held.sum(-1)], axis=-1))


def tokbench(long_side_px: int) -> tuple[Metric, Metric]:
    """T-ACC and T-NED of pictures that went through a tokenizer at 256, 512 or 1024 px: which words
    are small depends on it."""
    source = (
        f"TokBench at {long_side_px} px (wjf5203/TokBench, compute_all_metrics.py; read by docTR's "
        "PARSeq in each word's box): mean over small, medium and large words of "
    )
    measure = WordsByScale(TOKBENCH_SCALES[long_side_px])
    only = "; a size without words is left out of the mean"
    accuracy = functools.partial(_mean_of_sizes, which=0)
    ned = functools.partial(_mean_of_sizes, which=1)
    name = "tokbench_{}" if long_side_px == 256 else f"tokbench_{{}}_{long_side_px}"
    return (
        Metric(name.format("accuracy"), measure, accuracy, f"{source}the share read exactly{only}"),
        Metric(name.format("ned"), measure, ned, f"{source}1 - edits over longer length{only}"),
    )


TOKBENCH_ACCURACY, TOKBENCH_NED = tokbench(256)


def mario_words(case: Case, reading: Reading) -> tuple[float, float, float, float]:
    """(precision of a picture's words, their recall, whether the words in sorted order make the
    same string, pictures), in lower case; precision and recall of no words are 0."""
    wanted, read = _lower(case.targets), _lower(strings_of(reading))
    common = num_shared(wanted, read)
    same = "".join(sorted(wanted)) == "".join(sorted(read))
    return common / max(len(read), 1), common / max(len(wanted), 1), float(same), 1.0


def _mario_f1(sums: Statistics) -> Float[np.ndarray, ...]:
    precision, recall = _ratio(0, 3)(sums), _ratio(1, 3)(sums)
    return 2 * precision * recall / (precision + recall + 1e-8)


_MARIO = "MARIO-Eval (microsoft/unilm, textdiffuser/eval/ocr_eval.py; read by MaskTextSpotter v3): "
_MEAN = "mean over pictures of the {} of words as multisets, case folded"
MARIO_PRECISION = Metric(
    "mario_precision", mario_words, _ratio(0, 3), _MARIO + _MEAN.format("precision")
)
MARIO_RECALL = Metric("mario_recall", mario_words, _ratio(1, 3), _MARIO + _MEAN.format("recall"))
MARIO_F1 = Metric("mario_f1", mario_words, _mario_f1, _MARIO + "harmonic mean of the two means")
MARIO_ACCURACY = Metric(
    "mario_accuracy",
    mario_words,
    _ratio(2, 3),
    _MARIO + "pictures whose sorted words, joined, are the targets'",
)
