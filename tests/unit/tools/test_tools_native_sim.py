"""The compiled simulator's tool: its rewritten classes, and its refusal of other behaviour."""

import dataclasses
from pathlib import Path
from types import ModuleType

import pytest
from tools import native_sim

SOURCE = '''
from dataclasses import dataclass, field

@dataclass(frozen=True, slots=True)
class Point:
    """Two numbers."""

    x: int
    y: int = 7

    def total(self) -> int:
        return self.x + self.y

@dataclass(slots=True)
class Box:
    size: int
    items: list[int] = field(default_factory=list)

@dataclass(slots=True)
class Bucket:
    rate: int
    level: int = field(init=False)

    def __post_init__(self) -> None:
        self.level = self.rate

@dataclass(frozen=True, slots=True)
class Nothing:
    """No field."""
'''


def load(source: str) -> ModuleType:
    module = ModuleType("sample")
    exec(compile(source, "sample", "exec", dont_inherit=True), module.__dict__)
    return module


@pytest.fixture(scope="module")
def rewritten() -> ModuleType:
    text = native_sim.rewrite(SOURCE)
    assert "slots" not in text
    assert text.count("def __init__") == 2
    return load(text)


def test_a_rewritten_class_equals_and_hashes_as_before(rewritten: ModuleType) -> None:
    point, original = rewritten.Point, load(SOURCE).Point
    assert point(1) == point(1, 7) != point(2)
    assert point(1) != original(1)
    assert hash(point(3, 4)) == hash(original(3, 4))
    assert repr(point(3, 4)) == repr(original(3, 4))
    assert point(3, 4).total() == 7
    assert dataclasses.replace(point(3, 4), x=5) == point(5, 4)


def test_each_object_has_a_default_of_its_own(rewritten: ModuleType) -> None:
    one, other = rewritten.Box(1), rewritten.Box(1)
    one.items.append(8)
    assert other.items == []
    assert one != other
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_special_classes_are_left_to_dataclass(rewritten: ModuleType) -> None:
    assert rewritten.Bucket(5).level == 5
    assert rewritten.Nothing() == rewritten.Nothing()
    assert hash(rewritten.Nothing()) == hash(())


def simulate(folder: Path, name: str, text: str) -> None:
    package = folder / name / "hookprobe" / "sim"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(text)


@pytest.mark.parametrize(
    ("native", "sentence"),
    [
        ("print('seed 0 trace bb')", "behaves differently"),
        ("print('seed 0 trace aa'); print('more')", "behaves differently"),
        ("raise SystemExit('broken')", "native simulator fell: broken"),
    ],
)
def test_other_behaviour_is_refused(tmp_path: Path, native: str, sentence: str) -> None:
    simulate(tmp_path, "plain", "print('seed 0 trace aa')")
    simulate(tmp_path, "native", native)
    with pytest.raises(SystemExit, match=sentence):
        native_sim.check(tmp_path, [])


def test_the_same_behaviour_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("plain", "native"):
        simulate(tmp_path, name, "import sys; print(*sys.argv[1:])")
    native_sim.check(tmp_path, ["--seeds", "3"])
    assert "same traces, --seeds 3 --trace" in capsys.readouterr().err


def test_the_stamp_follows_the_sources(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("a = 1\n")
    before = native_sim.stamp(tmp_path)
    assert native_sim.stamp(tmp_path) == before
    (tmp_path / "one.py").write_text("a = 2\n")
    assert native_sim.stamp(tmp_path) != before
