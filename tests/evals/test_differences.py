"""Marks on hand-worked strings."""

from evals.differences import Mark, difference, marks


def test_marks_are_the_fewest_edits():
    assert marks("Sale", "Sale") == (Mark("same", "Sale"),)
    assert marks("Sale", "5ale") == (Mark("swapped", "S", "5"), Mark("same", "ale"))
    assert marks("Big Day", "BigDays") == (
        Mark("same", "Big"), Mark("lost", " "), Mark("same", "Day"), Mark("extra", "s"),
    )  # fmt: skip
    assert marks("K9", "") == (Mark("lost", "K9"),) and marks("", "K9") == (Mark("extra", "K9"),)


def asked_and_read(run):
    """The two strings that marks tell apart."""
    asked = "".join(mark.text for mark in run if mark.kind != "extra")
    read = "".join(
        {"same": mark.text, "lost": "", "extra": mark.text, "swapped": mark.read}[mark.kind]
        for mark in run
    )
    return asked, read


def test_read_words_are_laid_to_the_targets_they_resemble():
    found = difference(("Big Day", "the cat", "the dog"), ("the dog the", "cat Blg", "day zzz"))
    said = [asked_and_read(run) for run in found.targets]
    assert said == [("Big Day", "Blg day"), ("the cat", "the cat"), ("the dog", "the dog")]
    assert found.extra == ("zzz",) and (found.num_hits, found.num_words) == (4, 6)
    assert found.num_lost == 2
    halves = difference(("BigDay",), ("Big", "Day"))
    assert asked_and_read(halves.targets[0]) == ("BigDay", "Big Day") and not halves.extra
    folded = difference(("don’t – stop",), ("don't - stop",))
    assert [m.kind for m in folded.targets[0]] == ["same"] and folded.num_lost == 0
    none = difference(("K9",), ())
    assert none.targets == ((Mark("lost", "K9"),),) and none.num_lost == 1
    assert difference((), ("a", "b")).extra == ("a", "b")


def test_chinese_is_laid_line_by_line_and_counted_by_character():
    found = difference(("今日特价大优惠", "欢迎"), ("今日特介", "大优惠", "欢迎"), language="zh")
    assert found.targets[0] == (
        Mark("same", "今日特"), Mark("swapped", "价", "介"), Mark("same", "大优惠"),
    )  # fmt: skip
    assert (found.num_hits, found.num_words, found.extra) == (8, 9, ())
