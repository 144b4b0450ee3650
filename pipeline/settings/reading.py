"""What a YAML or JSON file holds as a typed tree; whatever is wrong with it is one line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pipeline.utils.errors import UserError

T = TypeVar("T")


class Settings(BaseModel):
    """Base of the trees: frozen, strict in types, no unknown keys, no infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


def check(model: type[T], content: Any, source: str) -> T:
    """Check content that was read from YAML or JSON, and return it as a typed tree.

    Raises:
        UserError: one line that names the key, its value and what is allowed.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{source}: must hold keys and values, not {type(content).__name__}")
    try:
        return TypeAdapter(model).validate_json(json.dumps(content))
    except ValidationError as error:
        raise UserError(f"{source}: {_sentence(error, model)}") from None


def _sentence(error: ValidationError, model: Any) -> str:
    """The first of pydantic's complaints, in one line."""
    first = error.errors(include_url=False)[0]
    key = ".".join(
        str(part) for part in first["loc"] if not str(part).startswith(("literal[", "constrained-", "float"))
    )
    reason = str(first.get("ctx", {}).get("error", first["msg"])).replace("\n", " ")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        near = difflib.get_close_matches(str(first["loc"][-1]), _fields_at(model, first["loc"][:-1]), n=1)
        return f"{key}: unknown key{f', did you mean {near[0]!r}?' if near else ''}{more}"
    if first["type"] == "missing":
        return f"{key}: missing{more}"
    value = first["input"]
    shown = "" if isinstance(value, Mapping | BaseModel) else f" = {_short(value)}"
    return f"{key}{shown}: {reason}{more}".removeprefix(": ")


def _short(value: Any) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def _fields_at(model: Any, location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are allowed at a place of a tree."""
    for part in location:
        annotation = get_type_hints(model).get(str(part)) if isinstance(model, type) else None
        # the type itself, or what a mapping or an optional setting holds
        model = annotation or next((a for a in get_args(model) if isinstance(a, type) and a is not str), None)
        if get_origin(model) in (Union, UnionType):
            model = get_args(model)[0]
    return list(get_type_hints(model)) if isinstance(model, type) and get_origin(model) is None else []


def read_yaml(path: str | Path) -> Any:
    """Content of a YAML file; a missing or malformed one raises UserError."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; `make repro` or `python -m pipeline compose <profile>` writes it"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
