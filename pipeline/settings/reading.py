"""What a YAML or JSON file holds, as a typed tree; whatever is wrong with it is one line."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pipeline.utils.errors import UserError, one_line, shown
from pipeline.utils.names import did_you_mean

T = TypeVar("T")

LARGEST = 2**20  # bytes of a file of settings
DEEPEST = 20  # levels of keys and lists
MERGE, NUMBERS = "tag:yaml.org,2002:merge", ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
PLAIN_NUMBER = re.compile(r"[-+]?(0|[1-9]\d*|\d*\.\d*|\.(inf|Inf|INF))|\.(nan|NaN|NAN)|[-+]?\d*\.?\d*[eE][-+]?\d+")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# pydantic speaks of JSON's types; settings are written in YAML.
_WORDS = {
    "Input should be": "must be",
    "a valid array": "a list",
    "a valid dictionary": "keys and values",
    "an object": "keys and values",
    "a valid string": "text",
    "a valid integer": "a whole number",
    "a valid boolean": "true or false",
    "a valid number": "a number",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
    "less than": "below",
    "String should have": "must have",
}


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
    if problem := next(_unfit(content), None):
        raise UserError(f"{source}: {problem}")
    try:
        # JSON's rules are those of YAML: there are no tuples, and a strict tree takes lists and mappings for its types.
        return TypeAdapter(model).validate_json(json.dumps(content))
    except ValidationError as error:
        raise UserError(f"{source}: {_sentence(error, model)}") from None


def _unfit(value: Any, place: str = "") -> Iterator[str]:
    """Yield what cannot be a setting at all: keys that are not text, dates, invisible characters."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            inner = f"{place}.{_shown_place((key,))}".removeprefix(".")
            if not isinstance(key, str):
                yield f"{inner}: a key must be text; put it in quotes"
            elif not key.isprintable() or not key:
                yield f"{inner}: a key must be text without line breaks and control characters"
            else:
                yield from _unfit(item, inner)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _unfit(item, f"{place}.{index}".removeprefix("."))
    elif isinstance(value, str) and not value.isprintable():
        yield f"{place} = {shown(value)}: must be text without line breaks and control characters"
    elif value is not None and not isinstance(value, bool | int | float | str):
        yield f"{place} = {shown(str(value))}: a {type(value).__name__} must be put in quotes"


def _sentence(error: ValidationError, model: Any) -> str:
    """Return the first of pydantic's complaints, in one line."""
    errors = error.errors(include_url=False)
    first, place = errors[0], _place(errors[0], model)
    key = _shown_place(place)
    alike = [each for each in errors if _place(each, model) == place]
    more = f" (and {len(errors) - len(alike)} more)" if len(errors) > len(alike) else ""
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        near = did_you_mean(str(place[-1]), _fields_at(model, place[:-1]))
        return f"{key}: unknown key{near and f', {near}'}{more}"
    if first["type"] == "missing":
        return f"{key}: missing{more}"
    reasons = dict.fromkeys(_reason(each) for each in alike)  # one for each type that a setting may have
    reason = " or ".join([next(iter(reasons)), *(text.removeprefix("must be ") for text in list(reasons)[1:])])
    value = first["input"]
    text = json.dumps(value) if value is None or isinstance(value, bool) else shown(value)  # null and true as in YAML
    stated = "" if isinstance(value, Mapping | BaseModel) else f" = {text}"
    return f"{key}{stated}: {reason}{more}".removeprefix(": ")


def _place(error: Any, model: Any) -> tuple[int | str, ...]:
    """Return the place of a complaint, without pydantic's names for the types that were tried there."""

    def is_type(part: str) -> bool:
        return part.startswith(("literal[", "constrained-", "function-")) or part in ("int", "float", "str", "[key]")

    return tuple(part for part in error["loc"] if not is_type(str(part)))


def _shown_place(place: tuple[int | str, ...]) -> str:
    return ".".join(text if len(text) <= 40 else f"{text[:37]}..." for text in map(str, place))


def _reason(error: Any) -> str:
    about = error.get("ctx", {})
    if error["type"] == "too_long":
        return f"must have at most {about['max_length']} entries"
    if error["type"] == "too_short":
        return "must not be empty"
    if "error" in about:  # raised by a check of ours
        return str(about["error"])
    text = str(error["msg"])
    for theirs, ours in _WORDS.items():
        text = text.replace(theirs, ours)
    return text


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
    """Return the content of a YAML file: plain keys, lists and values.

    Raises:
        UserError: if the file is missing or malformed, is very large or deep, has a key twice, or has aliases or tags
            (a few lines of which can stand for gigabytes).
    """
    try:
        data = Path(path).read_bytes()
        if len(data) > LARGEST:
            raise UserError(f"{path}: has {len(data)} bytes; at most {LARGEST} are allowed")
        text = data.decode()
        _check_events(text, str(path))
        return yaml.load(text, Loader=_StrictLoader)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; `make repro` or `python -m pipeline compose <profile>` writes it"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{path}: {line}not valid YAML ({error.problem or error.context})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({one_line(error)})") from None


def _check_events(text: str, source: str) -> None:
    """Refuse what must not even be loaded; this looks at one event after the other."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = f"{source}: line {event.start_mark.line + 1 if event.start_mark else 0}"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise UserError(f"{line}: more than {DEEPEST} levels of keys and lists are not allowed")
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"{line}: an alias (*{event.anchor}) is not allowed; write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":  # "!" is a quoted text
            name = tag.replace("tag:yaml.org,2002:", "!!")
            raise UserError(f"{line}: a tag ({name}) is not allowed; write the value alone")


class _StrictLoader(_Loader):
    """YAML's safe loader, which names the line of a value that it cannot read and of a key that is there twice."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node."""
        if node.tag in NUMBERS and not PLAIN_NUMBER.fullmatch(node.value):  # YAML 1.1 reads 010 as 8 and 1:30 as 90
            raise _marked(f"{shown(node.value)} is not a decimal number; put text in quotes", node)
        try:
            return super().construct_object(node, deep=deep)
        except ValueError:  # a number of thousands of digits, the 31st of February
            raise _marked(f"{shown(node.value)} is not a valid number or date", node) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping whose keys are all different."""
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key_node.tag == MERGE:
                raise _marked("the key << (a merge) is not allowed; write the keys out", key_node)
            if key in seen:
                raise _marked(f"the key {shown(key)} is there twice", key_node)
            seen.add(key)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return found


def _marked(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
