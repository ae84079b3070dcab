"""Profile, file, environment and flags become one checked `Config`, or every mistake at once.

Order, later wins: defaults < profile < file < `HOOKPROBE_...` environment < flags. The variable of
a key is its path in capitals with dots as underscores: `dsm.node.id` is HOOKPROBE_DSM_NODE_ID.
`${NAME}` inside the file's values is replaced from the environment.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from hookprobe.config.schema import BY_PATH, KEYS, PROFILES, Value
from hookprobe.errors import ConfigError, MalformedError

FILE_MAX_BYTES = 1 << 20
PREFIX = "HOOKPROBE_"
_PROFILES = Path(__file__).with_name("profiles")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HINT = "hookprobe config show lists every key, its value and where it came from"


@dataclass(frozen=True, slots=True)
class Config:
    """Checked settings.

    Attributes:
        path: The file; None where there is none.
        folder: Where relative paths start: the folder of the file.
        values: Setting by dotted path; every key of the schema is there.
        origins: Where each value came from.
    """

    path: Path | None
    folder: Path
    values: Mapping[str, Value]
    origins: Mapping[str, str]

    def text(self, path: str) -> str:
        return str(self.values[path])

    def integer(self, path: str) -> int:
        value = self.values[path]
        assert isinstance(value, int), path
        return value

    def flag(self, path: str) -> bool:
        return self.values[path] == "true"

    def texts(self, path: str) -> tuple[str, ...]:
        value = self.values[path]
        assert isinstance(value, tuple), path
        return value

    def file(self, path: str) -> Path:
        """Return a setting that names a file or folder, relative ones under `folder`."""
        return self.folder / self.text(path)


@dataclass(slots=True)
class _Layers:
    """Values gathered so far, and what was wrong with the others."""

    values: dict[str, Value] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def put(self, path: str, raw: object, origin: str) -> None:
        key = BY_PATH.get(path)
        if key is None:
            self.problems.append(f"{origin}: {path}: no such key")
            return
        try:
            self.values[path] = key.parse(raw)
            self.origins[path] = origin
        except MalformedError as error:
            self.problems.append(f"{origin}: {path}: {error.message}")


def load(path: Path | None, environment: Mapping[str, str], flags: Mapping[str, object]) -> Config:
    """Read the settings of a node.

    Args:
        path: The YAML file, or None for defaults.
        environment: The process's environment.
        flags: Dotted path to value, from the command line.

    Raises:
        ConfigError: Names every wrong key with its source.
    """
    layers = _Layers()
    for key in KEYS:
        layers.values[key.path], layers.origins[key.path] = key.default, "default"
    file_values = _read_file(path, environment, layers) if path is not None else {}
    profile = str(
        flags.get("profile")
        or environment.get(f"{PREFIX}PROFILE")
        or file_values.get("profile")
        or "guardian"
    )
    if profile in PROFILES:
        for name, value in _flatten(_profile(profile)).items():
            layers.put(name, value, f"profile {profile}")
    for name, value in file_values.items():
        layers.put(name, value, str(path))
    for key in KEYS:
        variable = PREFIX + key.path.upper().replace(".", "_")
        if variable in environment:
            layers.put(key.path, environment[variable], variable)
    for name, value in flags.items():
        layers.put(name, value, "command line")
    if layers.problems:
        raise ConfigError(layers.problems, hint=_HINT)
    folder = path.parent if path is not None else Path()
    return Config(path, folder, layers.values, layers.origins)


def _profile(name: str) -> object:
    return yaml.safe_load((_PROFILES / f"{name}.yaml").read_text(encoding="utf-8"))


def _read_file(path: Path, environment: Mapping[str, str], layers: _Layers) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            [f"{path}: {error.strerror}"], hint="name the file with --config"
        ) from error
    if len(data) > FILE_MAX_BYTES:
        raise ConfigError([f"{path}: larger than {FILE_MAX_BYTES} bytes"])
    try:
        document = yaml.safe_load(data)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError([f"{path}:{line}: not YAML: {error.problem}"]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError([f"{path}: not YAML"]) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError([f"{path}: must hold keys and values"])
    return {
        name: _expand(value, environment, f"{path}: {name}", layers.problems)
        for name, value in _flatten(document).items()
    }


def _flatten(document: object, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    if isinstance(document, dict):
        for name, value in document.items():
            path = f"{prefix}{name}"
            if isinstance(value, dict) and path not in BY_PATH:
                found |= _flatten(value, path + ".") if value else {path: value}
            else:
                found[path] = value
    return found


def _expand(
    value: object, environment: Mapping[str, str], where: str, problems: list[str]
) -> object:
    if isinstance(value, list):
        return [_expand(item, environment, where, problems) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[1] not in environment:
            problems.append(f"{where}: environment variable {match[1]} is not set")
        return environment.get(match[1], "")

    return _VARIABLE.sub(replace, value)
