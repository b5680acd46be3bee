"""The base of all settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, field_validator

MAX_SIDE_PX = 4096
"""Largest side of a model's input, in px."""

_MAX_NUMBER = 1_000_000_000


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, numbers finite and of at most a thousand million."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*")
    @classmethod
    def _is_bounded(cls, value: object) -> object:
        """A settings file from elsewhere must not overflow anything."""
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, int | float) and not abs(number) <= _MAX_NUMBER for number in numbers):
            raise ValueError(f"expected numbers of at most {_MAX_NUMBER:,}")
        return value
