"""config.yaml, server.yaml, --set and keyword options: what they accept and how they refuse."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyserve.config import (
    OPTIONS,
    Batching,
    Instances,
    LengthInput,
    Lengths,
    ModelConfig,
    Queue,
    ServerConfig,
    Versions,
    apply_options,
    apply_settings,
    is_name,
    load_model_config,
    parse_setting,
)
from pyserve.errors import ConfigError
from pyserve.signature import TensorSpec

DOCS = Path(__file__).resolve().parents[2] / "docs"

DESIGN_EXAMPLE = """
platform: torchscript
device: auto
inputs:  [{name: image, dtype: FP32, shape: [1, 28, 28]}]
outputs: [{name: logits, dtype: FP32, shape: [10]}]
batching: {max_batch_size: 32, max_queue_delay_us: 0}
instances: {count: 1, threads: 1}
queue: {capacity: 1024, timeout_ms: 0}
versions: {policy: latest, count: 1}
warmup: true
labels: {stable: 1}
"""


def test_every_key_of_the_designs_example_is_read() -> None:
    assert load_model_config(DESIGN_EXAMPLE) == ModelConfig(
        platform="torchscript",
        inputs=(TensorSpec("image", "FP32", (1, 28, 28)),),
        outputs=(TensorSpec("logits", "FP32", (10,)),),
        batching=Batching(max_batch_size=32, max_queue_delay_us=0),
        instances=Instances(count=1, threads=1),
        labels={"stable": 1},
    )


def test_an_empty_file_means_all_defaults() -> None:
    assert load_model_config("") == ModelConfig()
    assert load_model_config("# only a comment\n") == ModelConfig()


QUEUE = "a mapping with capacity, timeout_ms, default_priority"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batchin: {}", 'unknown key "batchin", did you mean "batching"?'),
        (
            "batching: {max_batch_siz: 3}",
            'unknown key "batching.max_batch_siz", did you mean "max_batch_size"?',
        ),
        (
            "queue: {zzz: 3}",
            'unknown key "queue.zzz"; known keys: capacity, timeout_ms, default_priority',
        ),
        (
            "batching: {max_batch_size: -3}",
            "batching.max_batch_size: expected a whole number from 0 to 1048576 or null, got -3",
        ),
        (
            "batching: {allowed_batch_sizes: [1, 4, 4]}",
            "batching: allowed_batch_sizes: expected ascending numbers, got 4 before 4",
        ),
        ("batching: {allowed_batch_sizes: [0, 4]}", "batching.allowed_batch_sizes[0]: expected a"),
        (
            "batching: {max_batch_size: 32, allowed_batch_sizes: [1, 16]}",
            "batching: allowed_batch_sizes ends at 16, but max_batch_size is 32: the last allowed "
            "size is the largest batch",
        ),
        (
            "batching: {max_batch_size: 0, invariant: true}",
            "batching: invariant needs a batch dimension, but max_batch_size is 0",
        ),
        ("batching: {allowed_batch_sizes: 4}", "batching.allowed_batch_sizes: expected a list of"),
        (
            "lengths: {bucket: [32]}",
            'unknown key "lengths.bucket", did you mean "buckets"?',
        ),
        ("lengths: {buckets: [32]}", "lengths: buckets need lengths.inputs, such as"),
        ("lengths: {mask: m}", "lengths: lengths needs buckets, such as [32, 64, 128]"),
        (
            "lengths: {buckets: [64, 32], inputs: {x: {dim: 0}}}",
            "lengths: buckets: expected ascending numbers, got 64 before 32",
        ),
        ("lengths: {buckets: [32], inputs: {x: {pad: 0}}}", "lengths.inputs.x: needs dim"),
        ("lengths: {buckets: [32], inputs: {x: {dim: -1}}}", "lengths.inputs.x.dim: expected a"),
        (
            "lengths: {buckets: [32], inputs: {x: {dim: 0, pas: 1}}}",
            'unknown key "lengths.inputs.x.pas", did you mean "pad"?',
        ),
        (
            "instances: {count: two}",
            'instances.count: expected a whole number from 1 to 1024 or null, got "two"',
        ),
        ("instances: {count: 1.0}", "instances.count: expected a whole number"),
        ("instances: {count: true}", "or null, got true"),
        ("queue: 3", f"queue: expected {QUEUE}, got 3"),
        ("queue:", f"queue: expected {QUEUE}, got nothing (null)"),
        ("queue: {default_priority: 0}", "a whole number from 1 to 3, got 0"),
        ("queue: {default_priority: 4}", "a whole number from 1 to 3, got 4"),
        ("queue: {default_priority: high}", 'a whole number from 1 to 3, got "high"'),
        ("warmup: 1", "warmup: expected true or false, got 1"),
        ("device: gpu", 'device: expected auto, cpu or cuda:N (such as cuda:0), got "gpu"'),
        ("platform: torchscrip", 'got "torchscrip", did you mean "torchscript"?'),
        ("inputs: []", "inputs: expected at least one tensor, got none"),
        ("inputs: [{name: x, dtype: FP32}]", "inputs[0]: needs shape"),
        (
            "inputs: [{name: x, dtype: FP32, shap: [1]}]",
            'unknown key "inputs[0].shap", did you mean "shape"?',
        ),
        ("inputs: [{name: x, dtype: FP32, shape: [a]}]", "inputs[0].shape[0]: expected a whole"),
        ("inputs: [{name: x, dtype: F32, shape: []}]", "inputs[0]: "),
        (
            "outputs: [{name: x, dtype: FP32, shape: []}, {name: x, dtype: FP32, shape: []}]",
            'outputs[1].name: "x" is given twice',
        ),
        ("versions: {policy: specific}", "needs versions.specific, such as [1, 3]"),
        ("versions: {specific: [1]}", 'specific is only for policy "specific", got policy'),
        ("versions: {count: 0}", "versions.count: expected a whole number, at least 1, got 0"),
        ("labels: {'1': 1}", 'labels: "1" cannot be a label'),
        ("labels: {a b: 1}", 'labels: "a b" cannot be a label'),
        ("labels: {stable: new}", 'labels.stable: expected a whole number, at least 1, got "new"'),
        ("labels: {on: 1}", "labels: expected text as a key, got true: quote it"),
        ("labels: {a: 9223372036854775808}", "labels.a: expected a whole number"),
        ("a: 1\na: 2", 'not valid YAML: key "a" is given twice (line 2, column 1)'),
        ("queue: {capacity: 1, capacity: 2}", 'key "capacity" is given twice'),
        ("a: &x [*x]", "anchors and aliases are not accepted here"),
        ("a: [", "not valid YAML"),
        ("- a", "expected a mapping of keys to values, got list"),
        ("!!python/object:os.system x", "not valid YAML"),
        ("a: !!int x", "not valid YAML"),
        ("[" * 5000, "not valid YAML: nested too deeply"),
        ("queue: {capacity: 0x" + "f" * 5000 + "}", "got a number of 20000 bits"),
        ("#" * (1 << 20) + "\n", "is too long"),
    ],
)
def test_a_mistake_is_told_with_key_expectation_and_what_came(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_model_config(text, name="digits")
    assert message in str(caught.value)
    assert str(caught.value).startswith("digits: config.yaml: ")


def test_a_file_that_cannot_be_read_is_a_config_error_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^m: config\.yaml: cannot be read: ") as caught:
        load_model_config(tmp_path / "config.yaml", name="m")
    assert str(tmp_path) not in str(caught.value)


def test_bytes_that_are_no_utf8_are_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"device: \xff")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_model_config(path)


@given(st.text(max_size=200))
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    try:
        assert isinstance(load_model_config(text), ModelConfig)
    except ConfigError as error:
        assert str(error)


YAML_BITS = st.sampled_from(
    [*"{}[],:-'\"&*!|>?#%@ \n", "a", "batching", "queue", "labels", "1", "!!int", "!!bool",
     "!!timestamp", "!!set", "!!omap", "!!binary", "<<", "~", "true", "2001-99-99", ": ", "- "]
)  # fmt: skip


@given(st.lists(YAML_BITS, max_size=25).map("".join))
def test_any_yaml_like_text_is_a_config_or_a_config_error(text: str) -> None:
    try:
        assert isinstance(load_model_config(text), ModelConfig)
    except ConfigError as error:
        assert str(error)


# --- versions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [
        (Versions(), (10,)),
        (Versions(count=2), (9, 10)),
        (Versions(count=99), (1, 2, 9, 10)),
        (Versions(policy="all"), (1, 2, 9, 10)),
        (Versions(policy="specific", specific=(2, 3, 10)), (2, 10)),
        (Versions(policy="specific", specific=(3,)), ()),
    ],
)
def test_the_policy_chooses_versions_as_integers(
    versions: Versions, chosen: tuple[int, ...]
) -> None:
    assert versions.choose([10, 9, 2, 1]) == chosen
    assert versions.choose([]) == ()


# --- --set --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["batching.max_batch_size=32"], ModelConfig(batching=Batching(max_batch_size=32))),
        (["batching.max_batch_size=null"], ModelConfig()),
        (["batching={max_batch_size: 8}"], ModelConfig(batching=Batching(max_batch_size=8))),
        (
            ["batching.allowed_batch_sizes=[1, 8]"],
            ModelConfig(batching=Batching(allowed_batch_sizes=(1, 8))),
        ),
        (["batching.invariant=true"], ModelConfig(batching=Batching(invariant=True))),
        (
            ["lengths.inputs.x.dim=1", "lengths.buckets=[8, 16]"],
            ModelConfig(lengths=Lengths(buckets=(8, 16), inputs={"x": LengthInput(dim=1)})),
        ),
        (["device=cuda:0"], ModelConfig(device="cuda:0")),
        (["m:device=cuda:1"], ModelConfig(device="cuda:1")),
        (["other:device=cuda:1"], ModelConfig()),
        (["platform=aotinductor"], ModelConfig(platform="aotinductor")),
        (["platform="], ModelConfig()),
        (["warmup=false"], ModelConfig(warmup=False)),
        (["labels.stable=3", "labels.v.1=1"], ModelConfig(labels={"stable": 3, "v.1": 1})),
        (
            ["inputs=[{name: x, dtype: FP32, shape: [3]}]"],
            ModelConfig(inputs=(TensorSpec("x", "FP32", (3,)),)),
        ),
        (
            ["versions.specific=[1, 2]", "versions.policy=specific"],
            ModelConfig(versions=Versions(policy="specific", specific=(1, 2))),
        ),
        (["queue.capacity=1", "queue.capacity=2"], ModelConfig(queue=Queue(capacity=2))),
        (["m:queue.capacity=1", "queue.capacity=2"], ModelConfig(queue=Queue(capacity=1))),
    ],
)
def test_settings_change_what_they_name(settings: list[str], expected: ModelConfig) -> None:
    assert apply_settings(ModelConfig(), settings, "m") == expected


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("batching.max_batch=3", 'unknown key "batching.max_batch", did you mean'),
        ("batching", "expected KEY=VALUE or NAME:KEY=VALUE"),
        ("=3", "expected a key before the equals sign"),
        ("m:=3", "expected a key before the equals sign"),
        ("a b:device=cpu", '"a b" is not a model name'),
        (":device=cpu", '"" is not a model name'),
        ("instances.count.x=3", "instances.count has no keys of its own"),
        ("device=gpu", 'got "gpu"'),
        ("labels.a=0", "labels.a: expected a whole number"),
        ("instances.count=[", "not valid YAML"),
        ("other:batchin.x=1", 'unknown key "batchin"'),
    ],
)
def test_a_wrong_setting_is_refused_and_named(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        apply_settings(ModelConfig(), [setting], "m")
    assert "--set" in str(caught.value)


def test_settings_keep_what_the_file_says_about_other_keys() -> None:
    config = load_model_config(DESIGN_EXAMPLE)
    changed = apply_settings(config, ["batching.max_queue_delay_us=500"], "m")
    assert changed == msgspec.structs.replace(
        config, batching=Batching(max_batch_size=32, max_queue_delay_us=500)
    )


@given(st.text(max_size=80))
def test_any_setting_is_parsed_or_refused(text: str) -> None:
    try:
        assert parse_setting(text).text == text
    except ConfigError as error:
        assert str(error).startswith("--set")


@given(
    model=st.none() | st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", fullmatch=True),
    size=st.integers(0, 1 << 20),
)
def test_a_setting_says_what_was_meant(model: str | None, size: int) -> None:
    prefix = "" if model is None else f"{model}:"
    setting = parse_setting(f"{prefix}batching.max_batch_size={size}")
    assert setting[:3] == (model, ("batching", "max_batch_size"), size)


# --- keyword options ----------------------------------------------------------------------


def test_keyword_options_reach_their_groups() -> None:
    config = apply_options(
        ModelConfig(),
        {
            "max_batch_size": 8,
            "max_queue_delay_us": 100,
            "instances": 2,
            "threads": 3,
            "queue_capacity": 4,
            "timeout_ms": 5,
            "inputs": [TensorSpec("x", "FP32", (3,))],
            "outputs": [{"name": "y", "dtype": "INT64", "shape": [-1]}],
            "warmup": False,
        },
    )
    assert config == ModelConfig(
        batching=Batching(max_batch_size=8, max_queue_delay_us=100),
        instances=Instances(count=2, threads=3),
        queue=Queue(capacity=4, timeout_ms=5),
        inputs=(TensorSpec("x", "FP32", (3,)),),
        outputs=(TensorSpec("y", "INT64", (-1,)),),
        warmup=False,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch": 3}, 'unknown option "max_batch", did you mean "max_batch_size"?'),
        ({"zzz": 3}, 'unknown option "zzz"; known options: platform, device'),
        ({"max_batch_size": "x"}, "batching.max_batch_size: expected a whole number"),
        ({"device": object()}, "device: cannot use an object of type object"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        apply_options(ModelConfig(), options)


def test_every_option_is_a_key_of_the_configuration() -> None:
    for path in OPTIONS.values():
        parse_setting(".".join(path) + "=null")


# --- names ------------------------------------------------------------------------------


@given(st.text(max_size=10))
def test_a_name_never_leads_out_of_its_folder(text: str) -> None:
    if is_name(text):
        assert Path(text).name == text
        assert text not in (".", "..")
        assert text.isascii()


def test_names_of_odd_but_legal_form_are_names() -> None:
    for name in ("model..1", "a", "-", "_", "0", "a" * 128, "ResNet-18_v1.5"):
        assert is_name(name)
    for name in ("", ".", "..", "...", ".a", "a/b", "a\n", "a b", "a" * 129, "ä", "a\0"):
        assert not is_name(name)


# --- the page -----------------------------------------------------------------------------


def _keys(type_: type[msgspec.Struct], prefix: str = "") -> list[str]:
    keys = []
    for field in msgspec.structs.fields(type_):
        default = field.default if field.default is not msgspec.NODEFAULT else None
        if isinstance(default, msgspec.Struct):
            keys += _keys(type(default), f"{prefix}{field.name}.")
        else:
            keys.append(prefix + field.name)
    return keys


def test_the_page_names_every_key_and_option() -> None:
    page = (DOCS / "configuration.md").read_text()
    keys = _keys(ModelConfig) + _keys(ServerConfig) + list(OPTIONS)
    assert "batching.max_batch_size" in keys
    missing = [key for key in keys if f"`{key}`" not in page]
    assert missing == []
