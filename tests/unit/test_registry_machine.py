"""The registry as a state machine: whatever is asked in whatever order, a plain model agrees."""

import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import cast

from fake_model import FakeModel, Opener, configure, put
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pyserve.errors import LoadFailed, ModelNotFound, Unavailable
from pyserve.live import LiveVersion
from pyserve.registry import Registry
from pyserve.repository import Repository

LIMIT_S = 20.0
VERSIONS = st.integers(1, 3)


class RegistryMachine(RuleBasedStateMachine):
    """One model, some versions; `served` is what must answer: version -> content of its file."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.repository = Path(self.folder.name)
        self.opener = Opener()
        self.registry = Registry(Repository([self.repository]), open_model=self.opener)
        self.disk: dict[int, str] = {}
        self.all_versions = False
        self.served: dict[int, str] = {}
        self.leases: list[tuple[LiveVersion, FakeModel]] = []
        self.unloads: list[Future[None]] = []
        self.count = 0

    def teardown(self) -> None:
        while self.leases:
            self.end_a_lease()
        assert self.registry.close(LIMIT_S)
        assert all(one.closed.is_set() and one.drained == 1 for one in self.opener.opened)
        assert all(one.done() for one in self.unloads)
        self.folder.cleanup()

    @rule(version=VERSIONS, good=st.booleans())
    def write_a_version(self, version: int, good: bool) -> None:
        self.count += 1
        self.disk[version] = f"good {self.count}" if good else "broken"
        put(self.repository, "m", version, self.disk[version])

    @precondition(lambda self: self.disk)
    @rule(data=st.data())
    def remove_a_version(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from(sorted(self.disk)))
        del self.disk[version]
        (self.repository / "m" / str(version) / "model.pt").unlink()

    @precondition(lambda self: self.disk)
    @rule(policy=st.booleans())
    def choose_a_policy(self, policy: bool) -> None:
        self.all_versions = policy
        configure(self.repository, "m", f"versions: {{policy: {'all' if policy else 'latest'}}}")

    @rule()
    def load(self) -> None:
        chosen = sorted(self.disk) if self.all_versions else sorted(self.disk)[-1:]
        good = {one: self.disk[one] for one in chosen if self.disk[one] != "broken"}
        failed = not chosen or len(good) < len(chosen)
        try:
            versions = self.registry.load("m").result(LIMIT_S)
        except (LoadFailed, ModelNotFound):
            assert failed
            self.served = {**self.served, **good}
        else:
            assert not failed
            assert versions == tuple(str(one) for one in chosen)
            self.served = good

    @rule()
    def unload(self) -> None:
        future = self.registry.unload("m")
        if self.leases:
            self.unloads.append(future)
            self.served = {}
            # A load of nothing ends when the unload before it has taken the routes away.
            assert self.registry.load("nothing").exception(LIMIT_S) is not None
            return
        try:
            future.result(LIMIT_S)
        except ModelNotFound:
            assert not self.served
        self.served = {}

    @rule(version=st.none() | VERSIONS)
    def lease(self, version: int | None) -> None:
        wanted = max(self.served, default=None) if version is None else version
        try:
            live = self.registry.lease("m", None if version is None else str(version))
        except (ModelNotFound, Unavailable):
            assert wanted not in self.served
            return
        assert wanted is not None
        model = cast(FakeModel, live.model)
        assert model.content == self.served[wanted]
        self.leases.append((live, model))

    @precondition(lambda self: self.leases)
    @rule()
    def end_a_lease(self) -> None:
        live, model = self.leases.pop(0)
        with live as same:
            assert same is model
            assert not model.closed.is_set()

    @invariant()
    def nothing_leased_is_closed_and_nothing_served_is(self) -> None:
        assert not any(model.closed.is_set() for _, model in self.leases)
        assert not any(cast(FakeModel, one).closed.is_set() for one in self.registry.live())

    @invariant()
    def what_is_served_is_what_should_be(self) -> None:
        live = {int(one.version): cast(FakeModel, one).content for one in self.registry.live()}
        assert live == self.served
        ready = {int(one.version) for one in self.registry.index() if one.state == "READY"}
        assert ready == set(self.served)


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
