"""Models for the JSON rows: an image's worth of numbers in, one number or as many out.

`python -m benchmarks.models NAME -o REPO`, in a process of its own since it imports torch.
"""

import argparse
from pathlib import Path

import torch

import pyserve

SHAPE = (3, 224, 224)
NUMBERS = 3 * 224 * 224


class Mean(torch.nn.Module):
    """Next to no work and one number."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the mean of every row."""
        return image.flatten(1).mean(dim=1, keepdim=True)


class Negate(torch.nn.Module):
    """Next to no work and as many numbers as came in."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the negative."""
        return -image


MODELS = {"json_small_reply": Mean, "json_full_reply": Negate}


def main() -> None:
    """Export a model into a repository."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("-o", dest="repository", type=Path, required=True)
    given = parser.parse_args()
    path = given.repository / given.name / "1" / "model.pt"
    path.parent.mkdir(parents=True)
    image = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    pyserve.export(MODELS[given.name]().eval(), path, inputs={"image": image}, output_names=["y"])


if __name__ == "__main__":
    main()
