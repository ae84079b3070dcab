"""The dashboard beside the types that Grafana publishes for its documents (v11.6).

The published reader is lenient: it takes any value and passes over what it does not know. So what
it read is written again and compared, and every value is held against the type that is declared.
What no type shows is checked here too: units, variables and the data sources that panels name.
"""

import copy
import enum
import json
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog import runtime
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

PLACE = Path(__file__).parents[3] / "deploy/grafana/dsm-mesh-overview.json"
BOARD: dict[str, Any] = json.loads(PLACE.read_text(encoding="utf-8"))
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and name[0] != "_"}
VARIABLE = re.compile(r"\$(?:\{(\w+)[^}]*\}|(\w+))")
BUILT_IN = re.compile(r"__\w+")
register_default_plugins()


def lost(ours: Any, theirs: Any, at: str) -> Iterator[str]:
    """Yield what Grafana's reader did not keep of a document."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            if name not in theirs:
                yield f"{at}.{name}: no such field"
            else:
                yield from lost(value, theirs[name], f"{at}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(one, other, f"{at}[{index}]")
    elif ours != theirs:
        yield f"{at}: {ours!r} is read as {theirs!r}"


def mistyped(value: Any, wanted: Any, at: str) -> Iterator[str]:
    """Yield where a value is not of the declared type."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is Any or wanted is object:
        yield from fields(value, at)
    elif origin in (typing.Union, types.UnionType):
        # A reader's object is one of them or none; a value that fits none is told of the last.
        own = [one for one in arguments if one is type(value)] or arguments
        told = [list(mistyped(value, one, at)) for one in own]
        if all(told):
            yield from max(told, key=len)
    elif origin is typing.Literal:
        if value not in arguments:
            yield f"{at}: {value!r} is not one of {arguments}"
    elif origin in (list, dict):
        if not isinstance(value, origin):
            yield f"{at}: {value!r} is no {origin.__name__}"
            return
        items = enumerate(value) if isinstance(value, list) else value.items()
        for key, item in items:
            yield from mistyped(item, arguments[-1], f"{at}[{key}]")
    elif issubclass(wanted, enum.Enum):
        if value not in [item.value for item in wanted]:
            yield f"{at}: {value!r} is no {wanted.__name__}"
    elif wanted is float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            yield f"{at}: {value!r} is no number"
    elif not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        yield f"{at}: {value!r} is no {wanted.__name__}"
    else:
        yield from fields(value, at)


def fields(value: Any, at: str) -> Iterator[str]:
    """Yield what is wrong with the fields of something that the reader made."""
    if type(value).__module__.startswith("grafana_foundation_sdk.models"):
        for name, wanted in typing.get_type_hints(type(value)).items():
            yield from mistyped(getattr(value, name), wanted, f"{at}.{name}")


def sources(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield where a data source is named, and by which uid."""
    for item in (*board["panels"], *board["templating"]["list"]):
        for part in (item, *item.get("targets", [])):
            if "datasource" in part:
                yield item.get("title", item.get("name", "")), part["datasource"]["uid"]


def problems(board: dict[str, Any]) -> list[str]:
    """Return what a Grafana would not take, or not show, of a dashboard."""
    try:
        read = Dashboard.from_json(board)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [f"it cannot be read: {error!r}"]
    found = [*lost(board, json.loads(JSONEncoder().encode(read)), "$"), *fields(read, "$")]
    variables = {item["name"]: item["type"] for item in board["templating"]["list"]}
    for panel in board["panels"]:
        at = panel["title"]
        if runtime.panelcfg_config(panel["type"]) is None:
            found.append(f"{at}: no panel is called {panel['type']}")
        if any(
            isinstance(one, runtime.UnknownDataquery) for one in read_targets(read, panel["id"])
        ):
            found.append(f"{at}: a query of no known data source")
        if panel["fieldConfig"]["defaults"].get("unit", "none") not in UNITS:
            found.append(f"{at}: no such unit")
        text = json.dumps([panel.get("targets", []), panel["title"]])
        names = {first or second for first, second in VARIABLE.findall(text)}
        unknown = sorted(name for name in names - set(variables) if not BUILT_IN.match(name))
        found += [f"{at}: no variable {name}" for name in unknown]
    for at, uid in sources(board):
        match = VARIABLE.fullmatch(uid)
        if match is None or variables.get(match[1]) != "datasource":
            found.append(f"{at}: the data source {uid} is not the reader's choice")
    return found


def read_targets(read: Dashboard, number: int) -> list[Any]:
    """Return the queries of a panel as the reader made them."""
    panels = [panel for panel in read.panels or [] if getattr(panel, "id_val", None) == number]
    return [target for panel in panels for target in getattr(panel, "targets", None) or []]


def test_grafana_takes_the_dashboard_as_it_stands() -> None:
    assert problems(BOARD) == []
    assert len(BOARD["panels"]) >= 15


def break_(path: str, value: Any) -> dict[str, Any]:
    """Return the dashboard with another value at a path."""
    broken = copy.deepcopy(BOARD)
    *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    place: Any = broken
    for step in way:
        place = place[step]
    place[last] = value
    return broken


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("colour", "red", "no such field"),
        ("schemaVersion", "39", "no int"),
        ("editable", 1, "editable"),
        ("tags", ["a", 1], "tags"),
        ("panels/0/type", "stats", "no panel is called stats"),
        ("panels/0/gridPos/w", "4", "w: '4'"),
        ("panels/0/gridPos/width", 4, "no such field"),
        ("panels/0/options/colour", "red", "no such field"),
        ("panels/0/options/graphMode", "lines", "graph"),
        ("panels/0/fieldConfig/defaults/unit", "blocks", "no such unit"),
        ("panels/0/fieldConfig/defaults/decimals", "2", "decimals"),
        ("panels/1/fieldConfig/defaults/thresholds/mode", "relative", "mode"),
        ("panels/1/fieldConfig/defaults/color/mode", "rainbows", "mode"),
        ("panels/6/fieldConfig/defaults/custom", {"drawStyle": "dots"}, "draw"),
        ("panels/6/targets/0/expression", "up", "no such field"),
        ("panels/6/targets/0/expr", 'up{job="$job"}', "no variable job"),
        ("panels/6/targets/0/expr", 7, "expr"),
        ("panels/6/datasource", {"type": "prometheus", "uid": "P1"}, "is not the reader's choice"),
        ("panels/6/datasource", {"type": "promotheus", "uid": "${datasource}"}, "no known data"),
        ("panels/6/datasource/uid", "${instance}", "is not the reader's choice"),
        ("templating/list/0/type", "source", "type"),
        ("templating/list/1/refresh", 9, "refresh"),
        ("templating/list/1/multiple", True, "no such field"),
        ("panels/0", {"title": "no type"}, "cannot be read"),
    ],
)
def test_what_grafana_would_not_take_is_found(path: str, value: Any, said: str) -> None:
    found = problems(break_(path, value))
    assert found
    assert any(said in problem for problem in found), found
