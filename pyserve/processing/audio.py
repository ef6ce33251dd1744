"""WAV and FLAC files become samples at the model's rate.

Decoding stops where a file holds more than it may, whatever its header says; sample rates are
bounded, for a resampler's filter grows with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from math import gcd

import numpy as np
import soundfile
from scipy.signal import resample_poly

from pyserve.errors import ConfigError
from pyserve.messages import InputTensor
from pyserve.process_config import AudioInput
from pyserve.processing.arrays import Array
from pyserve.processing.gather import gather
from pyserve.processing.limits import MAX_PREPARED_BYTES
from pyserve.processing.steps import (
    ServedModel,
    Target,
    bad_element,
    input_names,
    target_of,
)

_DTYPES = ("FP32", "FP16", "BF16", "FP64", "INT16")
_SUBTYPES = frozenset(
    ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
)
_LEAST_RATE, _MOST_RATE = 1_000, 192_000
_MOST_CHANNELS = 32
_BLOCK_FRAMES = 1 << 16
_MAX_FLOATS = MAX_PREPARED_BYTES // 4


class AudioStep:
    """Makes one input of recordings; see `AudioInput` for what can be said about it."""

    kind = "audio"

    def __init__(self, config: AudioInput, model: ServedModel) -> None:
        self._config = config
        self.input, name = input_names(model, config.input, config.tensor)
        target = target_of(model, name, ranks=(1, 2), dtypes=_DTYPES)
        self.targets: tuple[Target, ...] = (target,)
        self._target = target
        samples = target.shape[-1]
        self._length = config.length or (None if samples == -1 else samples)
        if samples not in (-1, self._length):
            raise ConfigError(
                f'length is {config.length}, input "{name}" has rows of shape {list(target.shape)}'
            )
        # Channels of a row; None: as many as a file has.
        self._channels = 1 if len(target.shape) == 1 else target.shape[0]
        if config.mono and self._channels not in (1, -1):
            raise ConfigError(
                f'input "{name}" has rows of shape {list(target.shape)}, {self._channels} '
                "channels: needs mono: false"
            )
        if not config.mono and len(target.shape) == 1:
            raise ConfigError(
                f'input "{name}" has rows of shape {list(target.shape)}: mono: false needs a '
                "dimension for the channels"
            )
        # The resampler is slow the first time.
        resample_poly(np.zeros((16, 1), np.float32), 1, 2)

    def prepare(self, elements: Sequence[memoryview]) -> list[InputTensor]:
        """Decode, mix, resample and trim each element; the rows of a request have one length."""
        return [gather(self.input, self._target, elements, self._samples)]

    def _samples(self, index: int, element: memoryview) -> Array:
        samples, rate = self._decode(index, element)
        if self._channels not in (-1, samples.shape[1]):
            raise bad_element(
                self.input,
                index,
                f"has {samples.shape[1]} channels, expected {self._channels}",
            )
        wanted = self._config.sample_rate
        if rate != wanted and len(samples):
            common = gcd(rate, wanted)
            up, down = wanted // common, rate // common
            if len(samples) * up // down * samples.shape[1] > _MAX_FLOATS:
                raise bad_element(self.input, index, f"too long to be resampled to {wanted} Hz")
            samples = resample_poly(samples, up, down)
        if self._config.normalize and len(samples):
            samples = (samples - samples.mean(axis=0)) / np.sqrt(samples.var(axis=0) + 1e-7)
        if self._length is not None:
            missing = max(0, self._length - len(samples))
            self._target.check_size(1, (samples.shape[1], self._length))
            samples = np.pad(samples[: self._length], ((0, missing), (0, 0)))
        if self._target.dtype == "INT16":
            samples = np.clip(np.rint(samples * 32768), -32768, 32767)
        return samples[:, 0] if len(self._target.shape) == 1 else samples.T

    def _decode(self, index: int, element: memoryview) -> tuple[Array, int]:
        """Return frames x channels (mixed: 1) as float32, and the file's sample rate."""
        if not _is_audio(element):
            what = "empty" if not len(element) else f"{len(element)} bytes that are"
            raise bad_element(self.input, index, f"{what} no WAV or FLAC file")
        try:
            with soundfile.SoundFile(BytesIO(element)) as file:
                rate, channels, subtype = file.samplerate, file.channels, file.subtype
                limit = int(self._config.max_seconds * rate)
                problem = ""
                if not _LEAST_RATE <= rate <= _MOST_RATE:
                    problem = f"{rate} Hz, expected {_LEAST_RATE} to {_MOST_RATE}"
                elif channels > _MOST_CHANNELS:
                    problem = f"{channels} channels, expected at most {_MOST_CHANNELS}"
                elif subtype not in _SUBTYPES:
                    problem = f"{subtype} samples, expected plain PCM or floats"
                blocks, frames = [], 0
                while not problem:
                    block = file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
                    if not len(block):
                        break
                    if self._config.mono:
                        block = block.mean(axis=1, keepdims=True)
                    blocks.append(block)
                    frames += len(block)
                    most = min(limit, _MAX_FLOATS // block.shape[1])
                    if frames > most:
                        problem = f"longer than {most / rate:g} s"
        except Exception:  # libsndfile's errors hold addresses
            raise bad_element(self.input, index, "a damaged WAV or FLAC file") from None
        if problem:
            raise bad_element(self.input, index, problem)
        if not blocks:
            return np.zeros((0, 1 if self._config.mono else channels), np.float32), rate
        return np.concatenate(blocks), rate


def _is_audio(element: memoryview) -> bool:
    return bytes(element[:4]) == b"fLaC" or (
        bytes(element[:4]) == b"RIFF" and bytes(element[8:12]) == b"WAVE"
    )
