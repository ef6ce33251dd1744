"""Recordings: decoded, mixed and resampled; lying and oversized files refused."""

import io
import struct

import numpy as np
import pytest
import soundfile
from processing_model import Array, Described, prepared, processor, takes

from pyserve.errors import ConfigError, InvalidInput

MODEL = takes("wave", "FP32", -1)


def sound(samples: Array, rate: int = 16000, kind: str = "WAV", subtype: str = "FLOAT") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def tone(hertz: float, rate: int, seconds: float = 0.5) -> Array:
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def step(options: str = "") -> str:
    return f"preprocess: [{{kind: audio{options}}}]"


async def test_a_wav_file_becomes_its_samples() -> None:
    samples = tone(440, 16000)
    found = (await prepared(processor(MODEL, step()), "wave", sound(samples)))["wave"]
    np.testing.assert_array_equal(found, samples[np.newaxis])


async def test_a_flac_file_becomes_its_samples() -> None:
    samples = tone(440, 16000)
    data = sound(samples, kind="FLAC", subtype="PCM_16")
    found = (await prepared(processor(MODEL, step()), "wave", data))["wave"]
    np.testing.assert_allclose(found[0], samples, atol=1e-4)


async def test_channels_are_mixed_to_their_mean() -> None:
    left, right = tone(440, 16000), tone(220, 16000)
    data = sound(np.stack([left, right], axis=1))
    found = (await prepared(processor(MODEL, step()), "wave", data))["wave"]
    np.testing.assert_allclose(found[0], (left + right) / 2, atol=1e-6)


async def test_channels_are_kept_where_the_model_takes_them() -> None:
    left, right = tone(440, 16000), tone(220, 16000)
    data = sound(np.stack([left, right], axis=1))
    made = processor(takes("wave", "FP32", 2, -1), step(", mono: false"))
    np.testing.assert_array_equal((await prepared(made, "wave", data))["wave"][0], [left, right])
    with pytest.raises(InvalidInput, match="element 0: has 1 channels, expected 2"):
        await prepared(made, "wave", sound(left))


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
async def test_a_tone_stays_the_same_tone_at_the_models_rate(rate: int) -> None:
    found = (await prepared(processor(MODEL, step()), "wave", sound(tone(440, rate), rate)))["wave"]
    expected = tone(440, 16000)
    assert abs(found.shape[1] - len(expected)) <= 1
    inner = slice(500, 7000)  # the filter rings at the ends
    np.testing.assert_allclose(found[0][inner], expected[inner], atol=0.02)


async def test_length_pads_with_silence_and_cuts_the_end() -> None:
    made = processor(takes("wave", "FP32", 1000), step())
    short, long = tone(440, 16000)[:600], tone(440, 16000)
    found = (await prepared(made, "wave", sound(short), sound(long)))["wave"]
    np.testing.assert_array_equal(found[0], np.pad(short, (0, 400)))
    np.testing.assert_array_equal(found[1], long[:1000])


async def test_normalized_samples_have_zero_mean_and_unit_variance() -> None:
    data = sound(tone(440, 16000) * 0.1 + 0.3)
    found = (await prepared(processor(MODEL, step(", normalize: true")), "wave", data))["wave"]
    assert abs(found.mean()) < 1e-4
    assert abs(found.std() - 1) < 1e-3


async def test_whole_numbers_come_back_exactly() -> None:
    samples = np.array([0, 1, -1, 32767, -32768, 123], np.int16)
    made = processor(takes("wave", "INT16", -1), step())
    data = sound(samples, subtype="PCM_16")
    np.testing.assert_array_equal((await prepared(made, "wave", data))["wave"][0], samples)


async def test_an_empty_recording_is_a_row_of_no_samples() -> None:
    data = sound(np.zeros(0, np.float32), 8000)
    assert (await prepared(processor(MODEL, step()), "wave", data))["wave"].shape == (1, 0)


def relabelled(data: bytes, rate: int) -> bytes:
    """A WAV file whose header says another sample rate."""
    place = data.index(b"fmt ") + 12
    return data[:place] + struct.pack("<I", rate) + data[place + 4 :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty no WAV or FLAC file"),
        (b"ID3 something", "13 bytes that are no WAV or FLAC file"),
        (b"RIFF\0\0\0\0WAVE", "a damaged WAV or FLAC file"),
        (b"fLaC" + bytes(100), "a damaged WAV or FLAC file"),
        (sound(tone(440, 16000), kind="OGG", subtype="VORBIS"), "no WAV or FLAC file"),
        (sound(tone(440, 16000), subtype="MS_ADPCM"), "MS_ADPCM samples, expected plain PCM"),
        (relabelled(sound(tone(440, 16000)), 2**31 - 1), "2147483647 Hz, expected 1000 to 192000"),
        (relabelled(sound(tone(440, 16000)), 1), "1 Hz, expected 1000 to 192000"),
        (sound(np.zeros(16000 * 20), kind="FLAC", subtype="PCM_16"), "longer than 10 s"),
    ],
)
async def test_a_hostile_recording_is_refused(data: bytes, message: str) -> None:
    made = processor(MODEL, step(", max_seconds: 10"))
    with pytest.raises(InvalidInput, match=r'^input "wave", element 0: ') as caught:
        await prepared(made, "wave", data)
    assert message in str(caught.value)
    assert "0x" not in str(caught.value)


async def test_mutations_of_recordings_are_recordings_or_refused() -> None:
    made = processor(MODEL, step())
    random = np.random.default_rng(5)
    samples = tone(440, 16000, 0.05)
    for whole in (sound(samples), sound(samples, kind="FLAC", subtype="PCM_16")):
        for _ in range(100):
            data = bytearray(whole)
            for place in random.integers(0, 120, 3):
                data[place] = random.integers(0, 256)
            try:
                found = await prepared(made, "wave", bytes(data))
            except InvalidInput:
                continue
            assert found["wave"].ndim == 2


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (takes("wave", "FP32", 100), ", length: 50", "length is 50"),
        (takes("wave", "FP32", 2, -1), "", "needs mono: false"),
        (takes("wave", "FP32", -1), ", mono: false", "needs a dimension for the channels"),
        (takes("wave", "INT64", -1), "", 'input "wave" is INT64'),
    ],
)
def test_a_step_that_does_not_fit_the_model_is_a_config_error(
    model: Described, options: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        processor(model, step(options))
