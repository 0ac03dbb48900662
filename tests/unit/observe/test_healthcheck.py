from __future__ import annotations

from pathlib import Path

from arroyo_sync.observe.healthcheck import HealthcheckUnlessStalled
from arroyo_sync.observe.stalls import Stall, WaitsFor
from arroyo_sync.testing import RecordingStep

STALL = Stall("events", 3, WaitsFor.LEADER, 300.0, 50, 50, 50, "writers", 50)


def test_the_file_is_touched_while_nothing_stands_still_and_the_next_step_is_polled_always(tmp_path: Path) -> None:
    """What watches the file sees a stall as it would see a pipeline that hangs."""
    file, step, stalls = tmp_path / "health", RecordingStep(), [STALL]
    check: HealthcheckUnlessStalled[object] = HealthcheckUnlessStalled(str(file), step, lambda: stalls)
    check.poll()
    assert not file.exists()
    stalls.clear()
    check.poll()
    assert file.exists()
    assert step.polls == 2
