"""TensorBoard's own reader on the event files we write."""

import pathlib
import struct
import subprocess

import pytest

from probe import find_program


@pytest.fixture(scope="module")
def events(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("events")
    subprocess.run([find_program("tensorboard_probe"), folder], check=True, timeout=60)
    return folder


def test_scalars_are_read_and_a_resumed_run_has_each_step_once(events):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(events), size_guidance={"scalars": 0})
    accumulator.Reload()
    assert sorted(accumulator.Tags()["scalars"]) == ["train/loss", "train/perplexity"]
    scalars = accumulator.Scalars("train/loss")
    assert [s.step for s in scalars] == [10, 20, 30, 40, 50, 60]
    expected = [1 / 10, 1 / 20, 1 / 30, 2.0, 2.0, 2.0]
    float32 = [struct.unpack("f", struct.pack("f", x))[0] for x in expected]
    assert [s.value for s in scalars] == float32
    assert all(s.wall_time > 1.6e9 for s in scalars)
    assert accumulator.file_version == 2.0


def test_events_parse_as_the_published_messages(events):
    """Protobuf itself would write each event with the same bytes."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    first, second = sorted(events.glob("events.out.tfevents.*"))
    old_raw = list(RawEventFileLoader(str(first)).Load())
    new_raw = list(RawEventFileLoader(str(second)).Load())
    old, new = ([Event.FromString(raw) for raw in raws] for raws in (old_raw, new_raw))
    assert [e.SerializeToString() for e in old + new] == old_raw + new_raw
    assert old[0].file_version == "brain.Event:2"
    assert [e.step for e in old[1:]] == [10, 20, 30, 40, 50, 1 << 40]
    assert [v.tag for v in old[1].summary.value] == ["train/loss", "train/perplexity"]
    nan = old[-1].summary.value[0].simple_value
    assert nan != nan
    assert new[1].session_log.status == SessionLog.START
    assert new[1].step == 31


def test_a_torn_record_hides_nothing_before_it(events, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    whole = sorted(events.glob("events.out.tfevents.*"))[0]
    torn = tmp_path / whole.name
    torn.write_bytes(whole.read_bytes()[:-5])
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert [s.step for s in accumulator.Scalars("train/loss")] == [10, 20, 30, 40, 50]
