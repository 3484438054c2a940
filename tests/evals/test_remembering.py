"""What is remembered is of the very same objects."""

from evals.metrics.remembering import remember_last


def test_only_the_same_objects_give_the_same_result_again():
    calls = []

    @remember_last
    def joined(parts, end=""):
        calls.append(parts)
        return "".join(parts) + end

    one, equal = ["a"], ["a"]
    assert joined(one) == joined(one) == "a" and len(calls) == 1
    assert joined(equal) == "a" and len(calls) == 2
    assert joined(equal, "!") == "a!" and joined(equal, end="!") == "a!" and len(calls) == 4
    assert joined(one) == "a" and len(calls) == 5
