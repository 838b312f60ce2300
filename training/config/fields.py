"""The fields of a recipe: value, limits, meaning, and what has to be chosen for them to have an effect."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

from pydantic import ConfigDict, Field, field_validator

LARGEST = 10**6  # of counts: none is sensibly larger, and arithmetic on them stays exact
STRICT = ConfigDict(extra='forbid', allow_inf_nan=False, validate_default=True)


class Values(NamedTuple):
    """Values that a field needs of another one, in words and by a test."""

    words: str
    test: Callable[[Any], bool]


GIVEN = Values('', lambda value: value not in (None, []))
ABSENT = Values('absent', lambda value: value in (None, []))
ABOVE_0 = Values('above 0', lambda value: value > 0)
ABOVE_1 = Values('above 1', lambda value: value > 1)
# Values that ask for what happens where a field has no effect; 0 equals False.
NOTHING: tuple[Any, ...] = (False, 'none', 'off', [])


def only(**needs: Any) -> Callable[..., Any]:
    """A maker of fields that have an effect only where other fields have certain values.

    Parameters
    ----------
    needs
        Name of a field to its value, a tuple of values, or `Values`; without any, the fields made
        always have an effect.

    Returns
    -------
    callable
        From default, description and limits to the field.
    """

    def field(default: Any, description: str, **limits: Any) -> Any:
        return Field(default=default, description=description, json_schema_extra={'needs': needs}, **limits)

    return field


def pair(value: Any) -> Any:
    """'16:4' as the list ['16', '4']; ValueError for what is no pair."""
    parts = value.split(':') if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or len(parts) != 2:
        raise ValueError(f'expected pairs such as 16:4, or [16, 4] in a file, got {value!r}')
    return parts


always, with_lgm = only(), only(loss='lgm')


def missing_need(item: dataclasses.Field, values: dict[str, Any]) -> Optional[str]:
    """What a field of a Section would need to have an effect among `values`, in words.

    None if it has an effect, or its value asks for nothing.
    """
    default: Any = item.default
    if values[item.name] in NOTHING:
        return None
    for name, wanted in default.json_schema_extra['needs'].items():
        choices = wanted if isinstance(wanted, tuple) else (wanted,)
        if not isinstance(wanted, Values):
            wanted = Values(' or '.join(map(str, choices)), choices.__contains__)
        if not wanted.test(values[name]):
            return f'--{name.replace("_", "-")} {wanted.words}'.rstrip() + f', got {values[name]}'
    return None


class Section:
    """What all sections of a recipe share."""

    @field_validator('*', mode='before')
    @classmethod
    def _no_truth_value(cls: Any, value: Any, info: Any) -> Any:
        """YAML's true and false, which Python would count as 1 and 0."""
        given = value if isinstance(value, list) else [value]
        if cls.__dataclass_fields__[info.field_name].type is not bool and any(
            isinstance(part, bool) for part in given
        ):
            raise ValueError(f'expected a value other than true and false, got {value}')
        return value
