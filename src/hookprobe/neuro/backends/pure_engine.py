"""The reference backend: Python integers, no dependency, about 4 ms a step."""

from collections.abc import Sequence

from hookprobe.neuro import network
from hookprobe.neuro.backends.engine import Examples
from hookprobe.neuro.weights import OUTPUTS, Layer, Weights, decode_weights, encode_weights


class PureEngine:
    """Weights as lists of integers.

    Args:
        masters: All weights as big-endian int64, or as layers that are now this engine's own.

    Raises:
        MalformedError: Wrong length, or a weight beyond its bound.
    """

    __slots__ = ("_layers",)

    def __init__(self, masters: bytes | Weights) -> None:
        self._layers = decode_weights(masters) if isinstance(masters, bytes) else masters

    def run(self, examples: Examples) -> None:
        for i, (k, eta) in enumerate(zip(examples.penalties, examples.rates, strict=True)):
            drawn = examples.draws[i * network.DRAW_BYTES : (i + 1) * network.DRAW_BYTES]
            selected = examples.selections[i * OUTPUTS : (i + 1) * OUTPUTS]
            network.step(self._layers, network.example(drawn, selected, k), eta)

    def output(self, x: Sequence[int]) -> list[int]:
        return network.forward(self._layers, list(x)).z[-1]

    def masters(self) -> bytes:
        return encode_weights(self._layers)

    def copy(self) -> "PureEngine":
        return PureEngine(
            [Layer([list(row) for row in layer.rows], list(layer.bias)) for layer in self._layers]
        )
