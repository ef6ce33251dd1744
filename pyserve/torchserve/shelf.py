"""The folder that archives are unpacked into: a model repository of this process's own.

Here is what touches the disk, and what is registered at start; nothing here knows what is loaded.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from pyserve.errors import PyserveError
from pyserve.torchserve.archives import is_archive
from pyserve.torchserve.convert import Converted, convert, write_config
from pyserve.torchserve.faults import BadArchive
from pyserve.torchserve.manifest import ModelSettings
from pyserve.torchserve.properties import Properties
from pyserve.torchserve.registrations import Registration, StoredModel

_log = logging.getLogger(__name__)


class Shelf:
    """The repository and what is registered in it.

    folder: the repository.  models: what is registered, by name; a value is replaced whole.
    problems: archives that could not be served at start, and why.
    """

    def __init__(
        self, store: Path | None, properties: Properties, *, allow_handlers: bool = False
    ) -> None:
        self.store = store
        self.folder = Path(tempfile.mkdtemp(prefix="pyserve-archives-"))
        self.models: dict[str, StoredModel] = {}
        self.problems: dict[str, str] = {}
        self._properties = properties
        self._allow_handlers = allow_handlers
        # Hidden, so that it is no model of the repository.
        self._scratch = self.folder / ".scratch"
        self._scratch.mkdir()
        self._numbers = itertools.count()

    def close(self) -> None:
        """Remove everything from the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- from an archive to a registration, in three steps ------------------------------------

    def scratch(self) -> Path:
        """Return a path for whatever is to be unpacked or downloaded next."""
        return self._scratch / str(next(self._numbers))

    def unpack(self, archive: Path, *, model_name: str = "", handler: str = "") -> Converted:
        """Make a version's folder of an archive; blocks; raises BadArchive."""
        scratch = self.scratch()
        try:
            return convert(
                archive,
                scratch,
                allow_handlers=self._allow_handlers,
                model_name=model_name,
                handler=handler,
            )
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    def registered(
        self, made: Converted, url: str, asked: ModelSettings, *, at_startup: bool
    ) -> tuple[StoredModel, Registration]:
        """Return the model as it is with this version; nothing is changed yet.

        Settings are looked for in the request, in `config.properties` for this model, in the
        archive, and in `config.properties` for all models.  Raises AlreadyRegistered, ConfigError.
        """
        known = self.models.get(made.model) or StoredModel(made.model)
        model = replace(known, versions=dict(known.versions))
        number = model.number_for(made.version)
        mine = self._properties.models.get((made.model, made.version), ModelSettings())
        settings = asked.over(mine).over(made.settings)
        workers = settings.min_workers or 0
        settings = settings.over(self._properties.common)
        if at_startup:
            workers_or_plan: int | None = settings.min_workers or None
        else:
            workers_or_plan = workers
        registration = Registration(
            number=number,
            text=made.version,
            url=url,
            converted=made,
            settings=settings,
            workers=workers_or_plan,
            at_startup=at_startup,
        )
        model.add(registration)
        wanted = self._properties.defaults.get(made.model)
        if at_startup and wanted == made.version:
            model.default = number
        return model, registration

    def place(self, model: StoredModel, registration: Registration) -> None:
        """Move a version's folder to where the repository has it; blocks."""
        folder = self.folder / model.name
        folder.mkdir(exist_ok=True)
        registration.converted.folder.rename(folder / str(registration.number))
        write_config(folder, model.config())

    def rewrite(self, model: StoredModel) -> None:
        """Write a model's configuration anew; blocks."""
        write_config(self.folder / model.name, model.config())

    def remove(self, model: StoredModel, number: int) -> None:
        """Take a version's files away, of which `model` knows no more; blocks."""
        gone = self.scratch()
        folder = self.folder / model.name
        if model.versions:
            self.rewrite(model)
            (folder / str(number)).rename(gone)
        else:
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    # --- at start -----------------------------------------------------------------------------

    def fill(self) -> None:
        """Register what is to be served from the start; what cannot be is in `problems`; blocks."""
        for name, archive in self._to_load():
            file = archive.name
            try:
                made = self.unpack(archive, model_name=name)
                model, registration = self.registered(made, file, ModelSettings(), at_startup=True)
                self.place(model, registration)
            except PyserveError as error:
                self.problems[file] = f"archive {file}: {error.message}"
                _log.error("archive %s: %s", file, error.message)
                continue
            self.models[model.name] = model
            for note in made.notes:
                _log.warning("archive %s: %s", file, note)

    def _to_load(self) -> list[tuple[str, Path]]:
        if self.store is None:
            return []
        listed = self._properties.load
        if listed is None:
            return [("", path) for path in sorted(self.store.iterdir()) if is_archive(path)]
        found = []
        for name, file in listed:
            try:
                found.append((name, self.find(file)))
            except BadArchive as error:
                self.problems[file] = f"archive {file}: {error.message}"
                _log.error("archive %s: %s", file, error.message)
        return found

    def find(self, file: str) -> Path:
        """Return an archive of the model store by its file name; BadArchive where there is none."""
        if self.store is None:
            raise BadArchive("there is no model store: start the server with --model-store")
        plain = file not in ("", ".", "..") and "/" not in file and "\0" not in file
        if not plain or len(file.encode(errors="replace")) > 255:
            raise BadArchive(
                f"{file[:80]!a} is no file of the model store: expected its name alone, such as "
                "squeezenet.mar"
            )
        path = self.store / file
        if not is_archive(path):
            raise BadArchive(f"there is no archive {file[:80]!a} in the model store")
        return path
