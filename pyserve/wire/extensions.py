"""The extensions of the protocol that this server speaks, in the words of its metadata."""

_ALWAYS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
)


def extensions(*, shared_memory: bool) -> tuple[str, ...]:
    """Return the names; `shared_memory`: whether system shared memory is on."""
    return (*_ALWAYS, "system_shared_memory") if shared_memory else _ALWAYS
