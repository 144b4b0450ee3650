"""Templates to text: Markdown for a code host, one self-contained HTML page for people."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report.evidence import MARKS
from pipeline.report.figures.style import THEME, ReportFigure
from pipeline.report.forms import difference_text, interval, measured_text, number, printed, seeds_text, thousands
from pipeline.settings.paper import COUNTED
from pipeline.utils.text import CONTROLS, Markdown, markdown, markdown_code, without_controls

_TEMPLATES = Path(__file__).parent / "templates"


@cache
def _environment(is_html: bool) -> Environment:
    """Jinja as it fills pages of HTML, or of Markdown; every value is escaped unless a filter gives it its markup."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=is_html,
        finalize=_html if is_html else markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": number,
        "printed": printed,
        "interval": lambda *estimate: Markdown(interval(*estimate)),
        "thousands": thousands,
        "measured": measured_text,
        "difference": difference_text,
        "seeds": seeds_text,
        "code": markdown_code,
        "ours": Markdown,
        "path": lambda path: Markdown(quote(path)),
        "p_value": lambda p: Markdown("< 0.001" if p < 0.001 else f"= {p:.3f}"),
        "inline": inline_figure,
        "data_json": _data_json,
    }
    environment.globals |= {"marks": MARKS, "counted": COUNTED, "asset": _asset}
    return environment


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill a template of this package; a name that the context lacks is an error."""
    return _environment(template.endswith(".html.j2")).get_template(template).render(context)


def _html(value: Any) -> Any:
    """A value without control characters, which Jinja then escapes; markup stays as it is."""
    return without_controls(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(name: str) -> Markup:
    """A style sheet or script of this package, to stand inside the page; its text is ours and needs no escape."""
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _data_json(value: Any) -> Markup:
    """JSON that can stand inside a script element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))


def _own_ids(text: str, name: str) -> str:
    """An SVG whose ids begin with `name`, so that several can stand on one page; ids that nothing uses go."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)


def inline_figure(figure: ReportFigure) -> Markup:
    """A figure to stand inside HTML: an SVG takes the page's colours, a PNG becomes a data address."""
    title = str(Markup.escape(figure.title))
    if figure.kind == "png":
        data = base64.b64encode(figure.data).decode()
        return Markup(f'<img src="data:image/png;base64,{data}" alt="{title}">')
    text = figure.data.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = _own_ids(text, figure.name)
    text = text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    for colour, variable in THEME.items():
        text = text.replace(colour, f"var({variable})")
    return Markup(text)
