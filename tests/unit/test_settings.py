"""Settings from the environment: what each form means, and that no mistake goes unnoticed."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest

from titus_celery.errors import SettingsError
from titus_celery.settings import FOREIGN_NAMES, Settings


def test_without_any_there_are_the_defaults() -> None:
    assert Settings.from_env({"PATH": "/bin", "CELERY_X": "1"}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("TITUS_REDIS_URL", " redis://r:6379/1 ", "redis_url", "redis://r:6379/1"),
        ("TITUS_QUEUES", "default, gpu ,", "queues", ("default", "gpu")),
        ("TITUS_INSECURE_REGISTRIES", "a:5000,b", "insecure_registries", ("a:5000", "b")),
        ("TITUS_SLOTS", "7", "slots", 7),
        ("TITUS_KEEP_DAYS", "3", "keep_days", 3),
        ("TITUS_AGENT_LEASE", "2.5", "agent_lease", timedelta(seconds=2.5)),
        ("TITUS_STOP_GRACE", "0", "stop_grace", timedelta(0)),
        ("TITUS_CONTROL_TIMER", "off", "control_timer", False),
        ("TITUS_CONTROL_TIMER", "FALSE", "control_timer", False),
        ("TITUS_CONTROL_TIMER", "0", "control_timer", False),
        ("TITUS_CONTROL_TIMER", "on", "control_timer", True),
        ("TITUS_CONTROL_TIMER", "True", "control_timer", True),
        ("TITUS_CONTROL_TIMER", "1", "control_timer", True),
        ("TITUS_ON_STOP", "stop", "on_stop", "stop"),
        ("TITUS_LOG_FORMAT", "json", "log_format", "json"),
    ],
)
def test_each_kind_of_value_is_read(name: str, text: str, field: str, value: Any) -> None:
    assert getattr(Settings.from_env({name: text}), field) == value


def test_every_setting_can_be_set_by_its_name() -> None:
    texts = {str: "keep", int: "3", bool: "off", timedelta: "3", tuple: "a"}
    chosen = {"log_format": "text", "crash_at": "claimed:freeze"}
    for field in fields(Settings):
        text = chosen.get(field.name, texts[type(field.default)])
        Settings.from_env({f"TITUS_{field.name.upper()}": text})


@pytest.mark.parametrize("name", sorted(FOREIGN_NAMES))
def test_names_that_others_use_are_passed_over(name: str) -> None:
    assert Settings.from_env({name: "x"}) == Settings()


def test_a_mistyped_name_is_refused_with_the_one_that_is_meant() -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings.from_env({"TITUS_REDIS_ULR": "redis://r"})
    assert str(refusal.value) == "setting TITUS_REDIS_ULR: is unknown; did you mean TITUS_REDIS_URL?"


def test_a_name_like_none_is_refused_without_a_guess() -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings.from_env({"TITUS_QQQQQQQQ": "1"})
    assert str(refusal.value) == "setting TITUS_QQQQQQQQ: is unknown"


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("TITUS_SLOTS", "0", "must be at least 1"),
        ("TITUS_SLOTS", "-3", "must not be negative"),
        ("TITUS_DISK_MB", "-1", "must not be negative"),
        ("TITUS_SLOTS", "many", "invalid literal"),
        ("TITUS_SLOTS", "1.5", "invalid literal"),
        ("TITUS_SLOTS", "", "invalid literal"),
        ("TITUS_STOP_GRACE", "-1", "must not be negative"),
        ("TITUS_STOP_GRACE", "10s", "could not convert"),
        ("TITUS_STOP_GRACE", "nan", "cannot convert"),
        ("TITUS_STOP_GRACE", "inf", "cannot convert"),
        ("TITUS_STOP_GRACE", "1e300", "too large|must have magnitude"),
        ("TITUS_CONTROL_TIMER", "maybe", "must be on or off"),
        ("TITUS_ON_STOP", "drop", "'drop' is none of keep, stop"),
        ("TITUS_LOG_FORMAT", "xml", "'xml' is none of text, json"),
        ("TITUS_INSECURE_REGISTRIES", "a:5000,http://b", "'http://b' is no host or host:port"),
        ("TITUS_CRASH_AT", "nowhere", "'nowhere' is none of , committed, claimed"),
    ],
)
def test_a_bad_value_is_refused_by_name_and_reason(name: str, text: str, why: str) -> None:
    with pytest.raises(SettingsError, match=f"setting {name}: .*({why})"):
        Settings.from_env({name: text})


@pytest.mark.parametrize(
    "name", ["AGENT_LEASE", "BEAT_LEASE", "POLL_PERIOD", "REPUBLISH_AFTER", "TICK_PERIOD"]
)
def test_a_period_of_nothing_is_refused_because_it_would_spin(name: str) -> None:
    with pytest.raises(SettingsError, match=f"TITUS_{name}.*never pause"):
        Settings.from_env({f"TITUS_{name}": "0"})


def test_queues_must_name_at_least_one() -> None:
    with pytest.raises(SettingsError, match="at least one"):
        Settings.from_env({"TITUS_QUEUES": " , "})
