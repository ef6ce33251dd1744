#!/bin/sh
# The GPU path in one command of under ten minutes: builds the extension where it stands, runs the
# tests that need a GPU, measures, prints one table.
#
#   PYTHON=/path/to/python benchmarks/gpu.sh
#
# PYTHON's environment has torch 2.11 or later with CUDA, pyserve's other requirements and its extras
# `bench` and `test`; nothing is installed, and nothing is fetched.  Exit codes: 0 all of it worked,
# 1 some part did not (the table says which), 3 there is no GPU.
set -u
cd "$(dirname "$0")/.." || exit 1
PYTHON=${PYTHON:-python3}
export PYTHONPATH="$PWD" MAX_JOBS="${MAX_JOBS:-$(nproc)}"

if ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  echo "no GPU that torch of $PYTHON can use: nothing was built, tested or measured"
  exit 3
fi

log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
# Runs a part under a time limit in seconds; what it says is shown where it fails.
part() {
  name=$1 limit=$2
  shift 2
  started=$(date +%s)
  if timeout -k 10 "$limit" "$@" >"$log/$name" 2>&1; then
    result=ok
  else
    result=failed
    tail -n 40 "$log/$name"
  fi
  echo "$name: $result in $(($(date +%s) - started)) s"
  [ "$result" = ok ]
}

status=0
[ -e pyserve/zoo ] || ln -s ../models pyserve/zoo
part protos 30 "$PYTHON" pyserve/protos/build.py || status=1
part build 240 "$PYTHON" setup.py build_ext --inplace || status=1
part tests 120 env PYSERVE_REQUIRE_CUDA=1 "$PYTHON" -m pytest -q -p no:cacheprovider \
  tests/integration/test_cuda.py || status=1
grep -E "passed|failed" "$log/tests" | tail -n 1
"$PYTHON" -m benchmarks.gpu --budget-s 180 || status=1
exit $status
