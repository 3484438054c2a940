"""What people look at: the bar, TensorBoard, traces; and who writes it."""

import gzip
import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from train.log import Evaluation, Log, for_the_bar
from train.profiling import ProfileConfig, Profiler
from train.readings import Readings


def events(folder):
    """The values in a TensorBoard folder, as (step, value)."""
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):  # a TFRecord: length, its checksum, the event, its checksum
            (size,) = struct.unpack_from("<Q", data, at)
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
            yield from ((event.step, value) for value in event.summary.value)
            at += size + 16


def open_log(folder, **changes):
    return Log(folder, **{"step": 0, "num_steps": 4, "every_steps": 2, **changes})


def steps(log, last):
    for step in range(1, last + 1):
        log.later(step, Readings.of({"accuracy": jnp.float32(0.5), "loss": jnp.float32(step)}))
    return log.now()


FOUND = Evaluation(
    {"fidelity": 0.75},
    pictures={"page": np.full((8, 6, 3), 200, np.uint8)},
    alarms=["it burns"],
    texts={"plan": "| wanted | printed |\n|---|---|\n| OPEN | 0PEN |"},
)


def test_an_evaluation_is_scalars_pictures_and_texts_on_tensorboard(tmp_path):
    with open_log(tmp_path) as log:
        log.beside(lambda: {"speed/steps_per_s": 8.0})
        assert steps(log, 4) == {"loss": 4.0, "accuracy": 0.5}
        log.evaluation(4, FOUND)
    shown = list(events(tmp_path / "tensorboard"))
    numbers = {(step, v.tag): v.simple_value for step, v in shown if v.HasField("simple_value")}
    assert numbers[2, "loss"] == 2.0 and numbers[4, "eval/fidelity"] == 0.75
    assert numbers[4, "speed/steps_per_s"] == 8.0 and (3, "loss") not in numbers
    texts = {v.tag.removesuffix("/text_summary"): v.tensor for _, v in shown}
    assert texts["plan"].string_val == [FOUND.texts["plan"].encode()]
    assert texts["alarm"].string_val == [b"it burns"]
    (image,) = (v.image for _, v in shown if v.tag == "page")
    assert (image.height, image.width) == (8, 6)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 4]
    assert [row.get("speed/steps_per_s") for row in rows] == [8.0, 8.0, None]


def test_other_processes_check_the_same_and_write_nothing(tmp_path, capfd):
    folder = tmp_path / "run"
    with open_log(folder, active=False) as log:
        assert steps(log, 4) == {"loss": 4.0, "accuracy": 0.5}
        log.evaluation(4, FOUND)
        log.later(5, Readings.of({"loss": jnp.float32(jnp.nan)}))
        with pytest.raises(FloatingPointError, match="loss became nan at step 5"):
            log.now()
        with pytest.raises(FloatingPointError, match="eval/fidelity became inf"):
            log.evaluation(5, Evaluation({"fidelity": np.inf}))
    assert not folder.exists()
    assert "run" not in capfd.readouterr().err


def test_the_bar_has_the_steps_their_speed_the_time_left_and_the_loss(tmp_path, capfd):
    with open_log(tmp_path / "demo", step=1) as log:
        log._bar.mininterval = 0.0
        steps(log, 3)
        log._bar.refresh()
    said = capfd.readouterr().err
    assert "demo:" in said and "4/4" in said and "loss=3" in said and "step/s" in said
    assert "<00:0" in said  # the time left
    values = {"loss": 2.0, "gradient_norm": 1.0, "quantizer/entropy": 3.0, "weight": 1.0,
              "psnr_db": 20.0, "perplexity": 7.5}  # fmt: skip
    assert for_the_bar(values) == {"loss": "2", "psnr_db": "20", "perplexity": "7.5"}
    assert list(for_the_bar({"weight": 1.0, "accuracy": 0.5, "loss": 2.0}, most=9)) == [
        "loss", "accuracy", "weight",
    ]  # fmt: skip


def test_the_steps_that_were_asked_for_are_traced(tmp_path):
    @jax.jit
    def step(x):
        return jnp.tanh(x @ x)

    x = step(jnp.ones((64, 64)))
    with Profiler(ProfileConfig("3:5"), tmp_path, num_steps=6) as profiler:
        for n in range(1, 7):
            x = profiler.run(n, step, x)
            traced = list((tmp_path / "profile").rglob("*.trace.json.gz"))
            assert len(traced) == (n >= 4)
    (trace,) = traced
    found = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    numbers = {int(e["args"]["step_num"]) for e in found if "step_num" in e.get("args", {})}
    assert numbers == {3, 4}
    assert list(trace.parent.glob("*.xplane.pb"))


def test_a_trace_that_an_error_ends_is_written_and_nobody_else_traces(tmp_path):
    with pytest.raises(KeyError), Profiler(ProfileConfig("1:9"), tmp_path, num_steps=9) as some:
        some.run(2, jnp.ones, (2,))
        raise KeyError
    assert list(tmp_path.rglob("*.trace.json.gz"))
    with Profiler(ProfileConfig("1"), tmp_path / "b", num_steps=9, active=False) as other:
        assert other.run(1, lambda: 7) == 7
    with Profiler(ProfileConfig(), tmp_path / "b", num_steps=9) as none:
        assert none.run(1, lambda: 7) == 7
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("text", ["10:13:2", "a", "10-13", ":3", "-1", "5:5", "5:4", "0:2", "0"])
def test_bad_ranges_are_refused(text):
    with pytest.raises(ValueError, match=r"profile\.steps .* (first:end|no step in it)"):
        ProfileConfig(text)


def test_ranges_past_the_run_are_refused(tmp_path):
    assert ProfileConfig("10:13").range == range(10, 13) and ProfileConfig("7").range == range(7, 8)
    with pytest.raises(ValueError, match=r"'10:13' ends past step 11, the run's last"):
        Profiler(ProfileConfig("10:13"), tmp_path, num_steps=11)
