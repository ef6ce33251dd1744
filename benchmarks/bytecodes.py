"""A server that counts the bytecodes of every Python function it runs.

`python -m benchmarks.bytecodes FILE [what pyserve serve takes]`: SIGUSR1 starts to count anew,
SIGUSR2 writes {function: [bytecodes, calls]} to FILE.
"""

import json
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_bytecodes: Counter[CodeType] = Counter()
_calls: Counter[CodeType] = Counter()


def _on_call(frame: FrameType, event: str, argument: object) -> Any:
    frame.f_trace_opcodes = True
    frame.f_trace_lines = False
    _calls[frame.f_code] += 1
    return _on_event


def _on_event(frame: FrameType, event: str, argument: object) -> Any:
    if event == "opcode":
        _bytecodes[frame.f_code] += 1
    return _on_event


def _name(code: CodeType) -> str:
    path = Path(code.co_filename)
    return f"{path.parent.name}/{path.name}:{code.co_qualname}"


def main() -> None:
    """Serve and count."""
    output = Path(sys.argv[1])

    def start(*_: object) -> None:
        _bytecodes.clear()
        _calls.clear()

    def write(*_: object) -> None:
        sys.settrace(None)
        counts = {_name(code): [count, _calls[code]] for code, count in _bytecodes.items()}
        whole = output.with_suffix(".part")
        whole.write_text(json.dumps(counts))
        whole.rename(output)
        sys.settrace(_on_call)

    signal.signal(signal.SIGUSR1, start)
    signal.signal(signal.SIGUSR2, write)
    sys.argv = ["pyserve", *sys.argv[2:]]
    sys.settrace(_on_call)
    runpy.run_module("pyserve", run_name="__main__")


if __name__ == "__main__":
    main()
