"""Configurations in Triton's words: a load request's JSON, and config.pbtxt in a repository."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_model import configure, put

from pyserve import typed
from pyserve.config import ModelConfig
from pyserve.errors import ConfigError, InvalidInput
from pyserve.repository import Repository
from pyserve.signature import TensorSpec
from pyserve.triton_config import changes_from_json, check_unload, load_changes, read_pbtxt


def changed(config: dict[str, Any]) -> ModelConfig:
    """What a load request with `config` makes of a model without a configuration."""
    changes = changes_from_json(json.dumps(config))
    return typed.overlay(ModelConfig(), changes, ModelConfig, source="test")


def refused(config: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        changes_from_json(config if isinstance(config, str) else json.dumps(config))
    return caught.value.message


def pbtxt(folder: Path, text: str) -> ModelConfig:
    path = folder / "config.pbtxt"
    path.write_text(text)
    return read_pbtxt(path, name="m").config


def test_more_priorities_than_ours_are_told(caplog: pytest.LogCaptureFixture) -> None:
    batching = {"priority_levels": 10, "default_priority_level": 5}
    assert changed({"dynamic_batching": batching}).queue.default_priority == 3
    assert "priority_levels: there are three here" in caplog.text


# --- what both say ------------------------------------------------------------------------------


def test_batching_instances_queue_and_versions_have_counterparts() -> None:
    config = changed(
        {
            "name": "m",
            "platform": "pytorch_libtorch",
            "backend": "pytorch",
            "max_batch_size": 8,
            "dynamic_batching": {
                "max_queue_delay_microseconds": "100",
                "priority_levels": "3",
                "default_priority_level": 1,
                "default_queue_policy": {
                    "default_timeout_microseconds": 1500,
                    "max_queue_size": 7,
                },
            },
            "instance_group": [{"count": 2, "kind": "KIND_CPU"}, {"kind": "KIND_CPU"}],
            "version_policy": {"specific": {"versions": [1, "3"]}},
            "default_model_filename": "model.pt",
        }
    )
    assert (config.batching.max_batch_size, config.batching.max_queue_delay_us) == (8, 100)
    assert (config.queue.timeout_ms, config.queue.capacity) == (2, 7)
    assert config.queue.default_priority == 1
    assert (config.instances.count, config.device) == (3, "cpu")
    assert config.versions.choose([1, 2, 3, 4]) == (1, 3)
    assert config.platform is None


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        ({"latest": {"num_versions": 2}}, (2, 3)),
        ({"latest": {}}, (3,)),
        ({}, (3,)),
        ({"all": {}}, (1, 2, 3)),
        ({"specific": {"versions": [2]}}, (2,)),
    ],
)
def test_version_policies_choose_as_in_triton(policy: Any, chosen: tuple[int, ...]) -> None:
    assert changed({"version_policy": policy}).versions.choose([1, 2, 3]) == chosen


@pytest.mark.parametrize(
    ("group", "device"),
    [
        ({"kind": "KIND_GPU", "gpus": [1]}, "cuda:1"),
        ({"kind": "KIND_GPU"}, "auto"),
        ({"kind": "KIND_MODEL"}, "auto"),
        ({}, "auto"),
    ],
)
def test_instances_run_where_the_group_says(group: Any, device: str) -> None:
    config = changed({"instance_group": [group]})
    assert (config.device, config.instances.count) == (device, 1)


def test_tensors_are_declared_and_names_with_an_index_say_their_position() -> None:
    tensors = [
        {"name": "INPUT__1", "data_type": "TYPE_STRING", "dims": [1]},
        {"name": "INPUT__0", "data_type": "TYPE_BF16", "dims": ["-1", 3], "optional": True},
    ]
    config = changed({"input": tensors, "output": [tensors[0] | {"label_filename": "l.txt"}]})
    assert config.inputs == (
        TensorSpec("INPUT__0", "BF16", (-1, 3)),
        TensorSpec("INPUT__1", "BYTES", (1,)),
    )
    assert config.outputs == (TensorSpec("INPUT__1", "BYTES", (1,)),)
    assert config.class_labels == "l.txt"


def test_names_without_an_index_keep_their_order() -> None:
    tensors = [
        {"name": name, "data_type": "TYPE_FP32", "dims": [1]} for name in ("b", "a", "INPUT__0")
    ]
    config = changed({"input": tensors})
    assert config.inputs is not None
    assert [one.name for one in config.inputs] == ["b", "a", "INPUT__0"]


def test_tensors_of_a_model_without_a_signature_declare_nothing() -> None:
    config = changed({"input": [{"name": "x", "data_type": "TYPE_INVALID", "dims": []}]})
    assert config.inputs is None


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"backend": "onnxruntime"}, 'backend is "onnxruntime", expected pytorch'),
        ({"platform": "tensorrt_plan"}, "platform"),
        ({"runtime": "model.py"}, "runtime"),
        ({"ensemble_scheduling": {"step": []}}, "ensembles are not supported"),
        ({"sequence_batching": {}}, "sequences are not supported"),
        ({"batch_input": [{"kind": "BATCH_ELEMENT_COUNT"}]}, "batch_input"),
        ({"model_repository_agents": {"agents": []}}, "agents"),
        ({"model_transaction_policy": {"decoupled": True}}, "one answer"),
        ({"input": [{"name": "x", "reshape": {"shape": []}}]}, "input.reshape"),
        ({"input": [{"name": "x", "allow_ragged_batch": True}]}, "input.allow_ragged_batch"),
        ({"output": [{"name": "y", "data_type": "FP32"}]}, "expected one such as TYPE_FP32"),
        ({"output": [{"name": "y", "data_type": "TYPE_FP31"}]}, "TYPE_FP31"),
        ({"input": [{"data_type": "TYPE_FP32"}]}, "needs name"),
        ({"input": {}}, "config: input"),
        ({"input": [7]}, r"input[0]"),
        ({"max_batch_size": "8x"}, "max_batch_size"),
        ({"max_batch_size": 1.5}, "max_batch_size"),
        ({"instance_group": [{"kind": "KIND_TPU"}]}, "KIND_TPU"),
        ({"dynamic_batching": {"max_queue_delay_us": 1}}, "did you mean"),
        ({"default_model_filename": "other.pt"}, "only in config.pbtxt"),
        ({"max_batch_siz": 8}, 'unknown key "max_batch_siz", did you mean "max_batch_size"?'),
        ({"batching": {"max_batch_siz": 8}}, "did you mean"),
        ({"x": 1}, 'unknown key "x"'),
        ([], "expected an object"),
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ('"\ud800"', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_what_is_unknown_or_cannot_be_honoured_is_refused_by_name(config: Any, words: str) -> None:
    assert words in refused(config)


def test_empty_lists_ask_for_nothing() -> None:
    empty = {"batch_input": [], "parameters": {}, "model_warmup": [], "model_operations": None}
    assert changes_from_json(json.dumps(empty)) == {}


# --- load requests ------------------------------------------------------------------------------


def test_what_changes_no_answer_is_told_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    batching = {"preferred_batch_size": [4], "max_queue_delay_microseconds": 0}
    config = {"optimization": {"graph": {"level": 1}}, "dynamic_batching": batching}
    changes = changes_from_json(json.dumps(config))
    assert changes == {("batching", "max_queue_delay_us"): 0}
    assert [one.getMessage() for one in caplog.records] == [
        "load request: optimization: no effect here",
        "load request: dynamic_batching.preferred_batch_size: no effect here",
    ]


def test_the_keys_of_config_yaml_may_be_used_too() -> None:
    changes = changes_from_json(
        '{"batching": {"max_batch_size": 4}, "warmup": false, "labels": {"a": 1}}'
    )
    assert changes == {
        ("batching", "max_batch_size"): 4,
        ("warmup",): False,
        ("labels",): {"a": 1},
    }


def test_what_a_request_does_not_say_stays_as_it_is() -> None:
    base = ModelConfig(warmup=False, class_labels=("a",))
    changes = changes_from_json('{"max_batch_size": 4, "instances": {"threads": 2}}')
    config = typed.overlay(base, changes, ModelConfig, source="test")
    assert (config.warmup, config.class_labels) == (False, ("a",))
    assert (config.batching.max_batch_size, config.instances.threads) == (4, 2)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"config": 7}, "as text"),
        ({"file:1/model.pt": "QUJD"}, "not taken from a request"),
        ({"config": "{}", "file:1/model.pt": "QUJD"}, "not taken from a request"),
        ({"unload_dependents": True}, 'no parameter "unload_dependents"'),
    ],
)
def test_parameters_of_a_load_that_are_not_taken_are_refused(parameters: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        load_changes(parameters)


def test_loads_and_unloads_may_say_nothing() -> None:
    assert (
        load_changes({}) == load_changes({"config": "{}"}) == load_changes({"config": None}) == {}
    )
    check_unload({"unload_dependents": True})
    with pytest.raises(InvalidInput, match='no parameter "config"'):
        check_unload({"config": "{}"})


# --- config.pbtxt -------------------------------------------------------------------------------

PBTXT = """
name: "m"  # the folder's name
platform: "pytorch_libtorch"
max_batch_size: 8
input [
  { name: "INPUT__0" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, -1, -1 ] }
]
output [ { name: "OUTPUT__0" data_type: TYPE_FP32 dims: 10 label_filename: "labels.txt" } ]
dynamic_batching { max_queue_delay_microseconds: 100 }
instance_group { count: 2 kind: KIND_CPU }
version_policy: { all {} }
"""


def test_a_pbtxt_says_the_same_as_json(tmp_path: Path) -> None:
    config = pbtxt(tmp_path, PBTXT)
    assert config.inputs == (TensorSpec("INPUT__0", "FP32", (3, -1, -1)),)
    assert config.outputs == (TensorSpec("OUTPUT__0", "FP32", (10,)),)
    assert (config.batching.max_batch_size, config.batching.max_queue_delay_us) == (8, 100)
    assert (config.instances.count, config.device) == (2, "cpu")
    assert config.versions.policy == "all"
    assert config.class_labels == "labels.txt"


def test_without_a_maximum_a_pbtxt_is_of_a_model_without_a_batch(tmp_path: Path) -> None:
    assert pbtxt(tmp_path, "").batching.max_batch_size == 0


def test_what_a_pbtxt_asks_for_in_vain_becomes_a_note(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(
        'parameters: { key: "INFERENCE_MODE" value: { string_value: "true" } }\n'
        'model_warmup { name: "w" batch_size: 1 }\n'
    )
    assert read_pbtxt(path, name="m").notes == (
        "config.pbtxt: parameters: no effect here",
        "config.pbtxt: model_warmup: no effect here",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name: "other"', 'name is "other", the folder is "m"'),
        ('backend: "python"', "backend"),
        ("sequence_batching {}", "sequences are not supported"),
        ('ensemble_scheduling { step { model_name: "x" } }', "ensembles are not supported"),
        ("max_batch: 8", '"max_batch" is not understood'),
        ('max_batch_size: "8"', "1:17"),
        ("max_batch_size: 8 }", "1:19"),
        ('default_model_filename: "../model.pt"', "default_model_filename"),
        ('default_model_filename: ".model.pt"', "default_model_filename"),
        ("instance_group {" * 500, "config.pbtxt"),
    ],
)
def test_a_pbtxt_that_cannot_be_honoured_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pbtxt(tmp_path, text)
    assert caught.value.message.startswith("m: config.pbtxt: ")
    assert words in caught.value.message


def test_a_repository_of_tritons_is_served_as_it_is(tmp_path: Path) -> None:
    put(tmp_path, "m", 1)
    put(tmp_path, "m", 2)
    (tmp_path / "m" / "config.pbtxt").write_text(PBTXT)
    entry = Repository([tmp_path]).scan()["m"]
    assert entry.error == ""
    assert list(entry.chosen()) == [1, 2]
    assert entry.config.batching.max_batch_size == 8


def test_another_name_for_the_model_file_is_looked_for(tmp_path: Path) -> None:
    path = put(tmp_path, "m", 1)
    put(tmp_path, "m", 2)
    path.rename(path.with_name("resnet.pt"))
    config = tmp_path / "m" / "config.pbtxt"
    config.write_text('default_model_filename: "resnet.pt"')
    entry = Repository([tmp_path]).scan()["m"]
    assert entry.versions == {1: path.with_name("resnet.pt")}
    assert entry.problems == {2: "no resnet.pt"}


def test_a_faulty_pbtxt_is_an_error_of_its_model_alone(tmp_path: Path) -> None:
    put(tmp_path, "m")
    put(tmp_path, "good")
    (tmp_path / "m" / "config.pbtxt").write_text('backend: "tensorrt"')
    entries = Repository([tmp_path]).scan()
    assert "tensorrt" in entries["m"].error
    assert entries["good"].error == ""


def test_config_yaml_wins_and_says_so(tmp_path: Path) -> None:
    put(tmp_path, "m")
    (tmp_path / "m" / "config.pbtxt").write_text("this is no pbtxt")
    configure(tmp_path, "m", "batching: {max_batch_size: 4}")
    entry = Repository([tmp_path]).scan()["m"]
    assert (entry.error, entry.config.batching.max_batch_size) == ("", 4)
    assert entry.notes == ("config.pbtxt is not read, config.yaml is there",)


def test_a_changed_pbtxt_is_a_changed_model(tmp_path: Path) -> None:
    put(tmp_path, "m")
    path = tmp_path / "m" / "config.pbtxt"
    path.write_text("max_batch_size: 8")
    before = Repository([tmp_path]).scan()["m"]
    path.write_text("max_batch_size: 16")
    after = Repository([tmp_path]).scan()["m"]
    assert before.stamps != after.stamps
