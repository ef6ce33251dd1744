"""What all Python tests share."""

import functools
import os

import pytest
from hypothesis import HealthCheck, settings

# How fast the machine is must not decide whether a test passes: Hypothesis builds its tables of
# Unicode on first use, which takes seconds on a busy one.
settings.register_profile(
    "pyserve", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("pyserve")


@functools.cache
def cuda_is_visible() -> bool:
    """Whether torch sees a GPU; asked only where a test wants one, for it imports torch."""
    import torch

    return torch.cuda.is_available()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none, or fail where there has to be one."""
    if item.get_closest_marker("cuda") is None or cuda_is_visible():
        return
    if os.environ.get("PYSERVE_REQUIRE_CUDA") == "1":
        pytest.fail("PYSERVE_REQUIRE_CUDA is 1, and torch sees no GPU", pytrace=False)
    pytest.skip("torch sees no GPU")
