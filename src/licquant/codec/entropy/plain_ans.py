"""The ANS coder in plain Python, word for word that of constriction: for machines that constriction has no wheel for.

What of ``constriction.stream`` is used, under the same names: ``AnsCoder`` on 32-bit words with a 64-bit state, models
on 24-bit quantiles. A symbol at a time, so it takes about a microsecond each where constriction takes a hundredth.

    state < 2^64, words a stack             push (left, width):  if state >= width·2^40: words ← low 32 bits of state
    the interval [left, left + width)                            state ← (state // width)·2^24 + left + state mod width
    of 2^24 stands for a symbol             pop: the inverse; a word is taken back when the state falls below 2^32
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

__all__ = ["AnsCoder", "Categorical", "Uniform"]

_PRECISION = 24
_QUANTILES = 1 << _PRECISION
_LOW = (1 << 32) - 1


class Categorical:
    """Slots with the probabilities given, a vector of at least two: slot i of n starts at ⌊C_i·(2^24 - n)⌋ + i."""

    def __init__(self, probabilities: np.ndarray, perfect: bool = False) -> None:
        if perfect:
            raise ValueError("only the model with perfect=False is here")
        before = np.concatenate([[0.0], np.cumsum(probabilities[:-1])])
        starts = np.floor(before * (_QUANTILES - probabilities.size)).astype(np.int64) + np.arange(probabilities.size)
        self.lefts: list[int] = starts.tolist()
        self.widths: list[int] = np.diff(starts, append=_QUANTILES).tolist()

    def slot(self, quantile: int) -> int:
        """The slot whose interval holds the quantile."""
        return bisect_right(self.lefts, quantile) - 1


class Uniform:
    """``size`` slots, a power of two up to 2^24, all alike."""

    def __init__(self, size: int) -> None:
        width = _QUANTILES // size
        self._width = width
        self.lefts, self.widths = range(0, _QUANTILES, width), [width] * size

    def slot(self, quantile: int) -> int:
        """The slot whose interval holds the quantile, 0 .. 2^24 - 1."""
        return quantile // self._width


class AnsCoder:
    """A stack of symbols. words: uint32[n], the last one not 0, as ``get_compressed`` gives them."""

    def __init__(self, words: np.ndarray) -> None:
        self._words: list[int] = words.tolist()
        self._state = 0
        while self._words and self._state <= _LOW:
            self._state = self._state << 32 | self._words.pop()

    def pos(self) -> tuple[int, int]:
        """(words beside the state, state)."""
        return len(self._words), self._state

    def get_compressed(self) -> np.ndarray:
        """uint32[n]: the words, then those of the state."""
        state = [self._state & _LOW, self._state >> 32]
        return np.array([*self._words, *(state if state[1] else state[:1])], dtype=np.uint32)

    def encode_reverse(self, symbols: np.ndarray, model: Categorical | Uniform) -> None:
        """Push symbols int32[n], the last one first."""
        words, state, lefts, widths = self._words, self._state, model.lefts, model.widths
        for symbol in reversed(symbols.tolist()):
            width = widths[symbol]
            if state >> (64 - _PRECISION) >= width:
                words.append(state & _LOW)
                state >>= 32
            state = (state // width << _PRECISION) + lefts[symbol] + state % width
        self._state = state

    def decode(self, model: Categorical | Uniform, count: int) -> np.ndarray:
        """Pop ``count`` symbols, int32[count]; from an empty stack too, as constriction does."""
        words, state, lefts, widths, slot = self._words, self._state, model.lefts, model.widths, model.slot
        symbols = np.empty(count, dtype=np.int32)
        for position in range(count):
            quantile = state & (_QUANTILES - 1)
            symbol = slot(quantile)
            symbols[position] = symbol
            state = (state >> _PRECISION) * widths[symbol] + quantile - lefts[symbol]
            if state <= _LOW and words:
                state = state << 32 | words.pop()
        self._state = state
        return symbols
