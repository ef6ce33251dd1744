"""What all Python tests share."""

from hypothesis import HealthCheck, settings

# How fast the machine is must not decide whether a test passes: Hypothesis builds its tables of
# Unicode on first use, which takes seconds on a busy one.
settings.register_profile(
    "pyserve", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("pyserve")
