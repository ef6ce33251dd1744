"""The part of TorchServe's Python package that handlers in archives are written against.

Only for servers that run such handlers: this imports torch.  Inference is not here: the engine
runs the model, between a handler's `preprocess` and its `postprocess`.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch


class Metrics:
    """Takes what handlers measure, and keeps nothing: pyserve's own metrics are elsewhere."""

    def add_counter(self, *args: Any, **kwargs: Any) -> None:
        """Ignore a counter."""

    add_time = add_size = add_percent = add_error = add_metric = add_counter


class Context:
    """What `initialize` is told."""

    def __init__(self, *, name: str, version: str, folder: Path) -> None:
        self.model_name = name
        self.manifest = {
            "model": {
                "modelName": name,
                "modelVersion": version,
                "serializedFile": "model.pt",
            }
        }
        self.system_properties: dict[str, Any] = {
            "model_dir": str(folder),
            "gpu_id": None,
            "batch_size": 1,
            "server_name": "pyserve",
        }
        self.model_yaml_config: dict[str, Any] = {}
        self.metrics = Metrics()


class BaseHandler:
    """The base of handlers; rows of a batch are the items of lists, as in TorchServe."""

    def __init__(self) -> None:
        self.model: Any = None  # the engine's
        self.mapping: dict[str, Any] | None = None
        self.device = torch.device("cpu")
        self.initialized = False
        self.context: Context | None = None
        self.manifest: dict[str, Any] = {}

    def initialize(self, context: Context) -> None:
        """Read `index_to_name.json`, where there is one; the model is loaded already."""
        self.context = context
        self.manifest = context.manifest
        path = Path(str(context.system_properties["model_dir"]), "index_to_name.json")
        if path.is_file():
            self.mapping = load_label_mapping(str(path))
        self.initialized = True

    def preprocess(self, data: Sequence[Any]) -> Any:
        """Make one tensor of all rows."""
        rows = [row.get("data") or row.get("body") for row in data]
        return torch.as_tensor([json.loads(row) if _is_text(row) else row for row in rows])

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Never called: the engine runs the model."""
        raise NotImplementedError("the engine runs the model")

    def postprocess(self, data: Any) -> list[Any]:
        """Make a list with one item for each row."""
        return list(data.tolist())

    def handle(self, data: Any, context: Context) -> Any:
        """Never called: the engine runs the model."""
        raise NotImplementedError("the engine runs the model")


class VisionHandler(BaseHandler):
    """Handlers of pictures: `image_processing` makes a tensor of each."""

    image_processing: Any = None

    def preprocess(self, data: Sequence[Any]) -> Any:
        """Open each row's picture and stack what becomes of them."""
        from PIL import Image

        pictures = []
        for row in data:
            file = row.get("data") or row.get("body")
            picture = Image.open(io.BytesIO(file)).convert("RGB")
            pictures.append(self.image_processing(picture))
        return torch.stack(pictures)


class ImageClassifier(VisionHandler):
    """Handlers of pictures that answer with the best classes."""

    topk = 5

    def __init__(self) -> None:
        super().__init__()
        if self.image_processing is None:
            self.image_processing = _classifier_transforms()

    def set_max_result_classes(self, topk: int) -> None:
        """Answer with so many classes."""
        self.topk = topk

    def postprocess(self, data: Any) -> list[Any]:
        """Return each row's best classes with their probabilities."""
        best, classes = torch.topk(torch.softmax(data, dim=1), min(self.topk, data.shape[1]), dim=1)
        return map_class_to_label(best.tolist(), self.mapping, classes.tolist())


def _classifier_transforms() -> Any:
    transforms = importlib.import_module("torchvision.transforms")
    return transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )


def load_label_mapping(path: str) -> dict[str, Any]:
    """Read `index_to_name.json`: names, or pairs of an id and a name."""
    mapping = json.loads(Path(path).read_text("utf-8"))
    return {str(key): one[-1] if isinstance(one, list) else one for key, one in mapping.items()}


def map_class_to_label(
    probs: Sequence[Sequence[float]],
    mapping: dict[str, Any] | None = None,
    lbl_classes: Sequence[Sequence[int]] | None = None,
) -> list[dict[str, float]]:
    """Name the probabilities of each row."""
    rows = lbl_classes or [range(len(row)) for row in probs]
    names = mapping or {}
    return [
        {str(names.get(str(index), index)): one for index, one in zip(classes, row, strict=True)}
        for classes, row in zip(rows, probs, strict=True)
    ]


def _is_text(value: Any) -> bool:
    return isinstance(value, str | bytes | bytearray)


_MODULES: dict[str, dict[str, Any]] = {
    "ts": {},
    "ts.torch_handler": {},
    "ts.torch_handler.base_handler": {"BaseHandler": BaseHandler},
    "ts.torch_handler.vision_handler": {"VisionHandler": VisionHandler},
    "ts.torch_handler.image_classifier": {"ImageClassifier": ImageClassifier},
    "ts.utils": {},
    "ts.utils.util": {
        "load_label_mapping": load_label_mapping,
        "map_class_to_label": map_class_to_label,
    },
    "ts.context": {"Context": Context},
}


def install() -> None:
    """Let `import ts` find this; a TorchServe that is installed is not used."""
    for name, values in _MODULES.items():
        module = ModuleType(name, __doc__)
        module.__dict__.update(values)
        if name in ("ts", "ts.torch_handler", "ts.utils"):
            module.__path__ = []
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
