"""`pyserve zoo`: list and build the models that come with pyserve."""

import importlib
from pathlib import Path

import click


@click.group("zoo", short_help="List and build the models that come with pyserve.")
def command() -> None:
    """List and build the models that come with pyserve.

    \b
      pyserve zoo list
      pyserve zoo build digits -o models
      pyserve serve --model-repository models
    """


@command.command("list", short_help="Name the models of the zoo.")
def list_models() -> None:
    """Name the models of the zoo, with a line on each."""
    zoo = importlib.import_module("pyserve.zoo")
    names = zoo.names()
    width = max(map(len, names))
    for name in names:
        click.echo(f"{name:<{width}}  {zoo.describe(name)}")


@command.command("build", short_help="Build models into a repository.")
@click.argument("name", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    "repository",
    required=True,
    metavar="REPO",
    help="The model repository, made if it is not there: REPO/NAME/1/model.pt",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of weights and training."
)
def build_models(name: tuple[str, ...], repository: str, seed: int) -> None:
    """Build the models NAME... and export each, with its signature, into a model repository."""
    from pyserve.cli.terminal import progress_bar

    zoo = importlib.import_module("pyserve.zoo")
    for one in name:
        zoo.describe(one)
    for one in name:
        with progress_bar(one) as progress:
            path = zoo.build(one, Path(repository), seed=seed, progress=progress)
        click.echo(f"built {path}")
    click.echo(f"serve with: pyserve serve --model-repository {repository}")
