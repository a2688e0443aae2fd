"""What is said of long work."""

import logging

import pytest

from imgcls.runtime.progress import tracked


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("imgcls")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "propagate", False)
    caplog.set_level(logging.INFO, "imgcls")
    assert list(tracked(range(3), 12_000, "reading headers")) == [0, 1, 2]
    assert caplog.messages == []
    monkeypatch.setattr("imgcls.runtime.progress.LINE_SECONDS", 0.0)
    assert list(tracked("ab", 12_000, "reading headers")) == ["a", "b"]
    assert [line.split(", about")[0] for line in caplog.messages] == [
        "reading headers: 1 of 12,000",
        "reading headers: 2 of 12,000",
    ]
