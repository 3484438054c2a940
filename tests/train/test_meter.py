"""Every second of a run is booked once, whatever kills it."""

import json

import pytest

from train.supervision.meter import FILE, Meter, read_ledger


class Time:
    """A machine's clocks: one since it was switched on, one of the day, a constant apart."""

    def __init__(self):
        self.now = 0.0

    def clock(self):
        return self.now

    def wall(self):
        return 1000.0 + self.now

    def meter(self):
        return Meter(clock=self.clock, wall=self.wall)


def go(time, meter, steps, *, step_s=2.0, wait_s=0.5):
    for step in steps:
        with meter.span("data"):
            time.now += wait_s
        time.now += step_s
        meter.done(step, {"rows": 8.0, "tokens": 80.0}, flops=1000.0)


def start(time, folder, *, restore_s, active=True, peak=None):
    meter = time.meter()
    time.now += 3.0
    meter.open(folder, active=active, peak_flops_per_s=peak)
    with meter.span("restore"):
        time.now += restore_s
    with meter.span("compile"):
        time.now += 4.0
    meter.begin()
    return meter


def total(ledger):
    return ledger.productive_s + sum(ledger.lost_s.values())


def test_a_killed_run_that_redoes_three_steps(tmp_path):
    time = Time()
    meter = start(time, tmp_path, restore_s=0.0)
    go(time, meter, range(1, 11))
    with meter.span("evaluation"):
        time.now += 7.0
        with meter.span("save"):
            time.now += 5.0
    go(time, meter, range(11, 14))
    time.now += 1.25  # of a step that is not done
    meter.write()
    assert read_ledger(tmp_path).last == 1000 + time.now - 1.25
    time.now += 30.0  # a kill, and a scheduler; the save at step 10 is what is left
    meter = start(time, tmp_path, restore_s=6.0)
    go(time, meter, range(11, 15))
    meter.write()
    ledger = read_ledger(tmp_path)
    assert (ledger.num_starts, ledger.step, ledger.started) == (2, 14, 1000.0)
    assert ledger.productive_s == 14 * 2.0
    assert ledger.lost_s == {
        "init": 6.0, "restore": 6.0, "compile": 8.0, "data": 17 * 0.5, "evaluation": 7.0,
        "save": 5.0, "redone": 3 * 2.0, "down": 31.25,
    }  # fmt: skip
    assert total(ledger) == time.now == ledger.last - ledger.started
    assert json.loads((tmp_path / FILE).read_text())["goodput"] == 28 / time.now


def test_steps_of_which_nothing_was_written_are_down_once_and_productive_once(tmp_path):
    time = Time()
    meter = start(time, tmp_path, restore_s=0.0)
    go(time, meter, range(1, 3))
    meter.write()
    go(time, meter, range(3, 6))  # and a kill
    again = start(time, tmp_path, restore_s=1.0)
    go(time, again, range(3, 6))
    again.write()
    ledger = read_ledger(tmp_path)
    assert ledger.productive_s == 5 * 2.0 and "redone" not in ledger.lost_s
    assert ledger.lost_s["down"] == 3 * 2.5 and total(ledger) == time.now


def test_rates_are_of_the_loop_since_the_last_ones(tmp_path):
    time = Time()
    meter = start(time, tmp_path, restore_s=0.0, peak=16000.0)
    assert meter.rates() == {}
    go(time, meter, range(1, 3), step_s=9.0)
    meter.rates()
    go(time, meter, range(3, 7))
    with meter.span("evaluation"):
        time.now += 100.0
    assert meter.rates() == pytest.approx(
        {
            "speed/steps_per_s": 1 / 2.5,
            "speed/rows_per_s": 8 / 2.5,
            "speed/tokens_per_s": 80 / 2.5,
            "speed/model_flops_per_s": 400.0,
            "speed/mfu": 400.0 / 16000.0,
            "speed/data_wait": 0.2,
            "speed/goodput": (2 * 9.0 + 4 * 2.0) / time.now,
        }
    )
    assert meter.rates() == {}
    unknown = start(Time(), tmp_path / "other", restore_s=0.0)
    unknown.done(1, {}, flops=1.0)
    assert unknown.rates() == {}  # in no time
    time = Time()
    unknown = start(time, tmp_path / "another", restore_s=0.0)
    go(time, unknown, [1])
    rates = unknown.rates()
    assert "speed/mfu" not in rates and rates["speed/model_flops_per_s"] == 400.0


def test_a_step_that_compiled_is_in_no_rate(tmp_path):
    time = Time()
    meter = start(time, tmp_path, restore_s=0.0)
    with meter.span("compile"):
        time.now += 50.0
    go(time, meter, [1], step_s=9.0, wait_s=0.0)
    assert meter.rates() == {}
    go(time, meter, [2, 3])
    with meter.span("compile"):  # a longer bucket
        time.now += 50.0
    go(time, meter, [4], step_s=9.0, wait_s=0.0)
    rates = meter.rates()
    assert rates["speed/steps_per_s"] == 1 / 2.5 and rates["speed/data_wait"] == 0.2
    meter.write()
    assert read_ledger(tmp_path).productive_s == 9 + 2 + 2 + 9


def test_only_the_first_process_writes_and_all_read(tmp_path):
    time = Time()
    with start(time, tmp_path, restore_s=0.0) as first:
        go(time, first, [1])
    other = start(time, tmp_path, restore_s=0.0, active=False)
    go(time, other, [2])
    before = (tmp_path / FILE).read_text()
    other.write()
    assert (tmp_path / FILE).read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [FILE]
    assert other.rates()["speed/goodput"] == 4.0 / time.now


@pytest.mark.parametrize("text", ["", "{", "[]", '{"goodput": 1}', '{"goodput": 1, "step": "a"}'])
def test_a_damaged_ledger_is_said_to_be_and_does_not_stop_the_run(tmp_path, caplog, text):
    (tmp_path / FILE).write_text(text)
    time = Time()
    meter = start(time, tmp_path, restore_s=0.0)
    assert f"{FILE} cannot be read" in caplog.text
    go(time, meter, [1])
    meter.write()
    assert read_ledger(tmp_path).productive_s == 2.0


def test_a_clock_that_was_set_back_loses_nothing(tmp_path):
    time = Time()
    meter = start(time, tmp_path, restore_s=0.0)
    go(time, meter, [1])
    meter.write()
    time.now -= 5.0
    meter = start(time, tmp_path, restore_s=0.0)
    go(time, meter, [2])
    meter.write()
    ledger = read_ledger(tmp_path)
    assert ledger.lost_s["down"] == 0.0 and 0 < ledger.goodput < 1


def test_a_span_has_a_phase_s_name_and_ends_with_an_error(tmp_path):
    meter = Time().meter()
    named = pytest.raises(ValueError, match="no span is called 'lunch'; there are init, restore")
    with named, meter.span("lunch"):
        pass
    time = Time()
    meter = start(time, tmp_path, restore_s=0.0)
    with pytest.raises(KeyError), meter.span("evaluation"):
        raise KeyError
    go(time, meter, [1])
    meter.write()
    assert read_ledger(tmp_path).productive_s == 2.0
