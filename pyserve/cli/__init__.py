"""The command line: one file per command, imported when it is used.

`pyserve --help` must be quick, so a command's file imports the heavy things (torch, aiohttp)
inside its function.  A command whose file is not there is not listed.
"""

import importlib
import importlib.util

import click

from pyserve.errors import ConfigError, InvalidInput, PyserveError

_COMMANDS = ("serve", "export", "inspect", "predict", "bench", "zoo")


class _BadUsage(click.ClickException):
    """One line on standard error, exit code 2; what is no fault of the caller's exits with 1."""

    exit_code = 2


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in _COMMANDS if _module(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _module(cmd_name) if cmd_name in _COMMANDS else None
        if module is None:
            return None
        command = importlib.import_module(module).command
        return command if isinstance(command, click.Command) else None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (ConfigError, InvalidInput) as error:
            raise _BadUsage(error.message) from error
        except PyserveError as error:
            raise click.ClickException(error.message) from error


def _module(name: str) -> str | None:
    """Return the module of a command, or None where it is not installed."""
    module = f"{__name__}.{name}"
    return module if importlib.util.find_spec(module) else None


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from pyserve import __version__

        click.echo(f"pyserve {__version__}")
        ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def group() -> None:
    """Serve PyTorch models from a C++ core.

    \b
    A first round:
      pyserve zoo build digits -o models           make a model (trains for some seconds)
      pyserve serve --model-repository models      serve it at http://127.0.0.1:8000
      pyserve predict digits --input @digit.png    ask it, from another terminal

    \b
    Your own model:
      pyserve export my_model.py:build --example image=FP32[1,3,224,224] -o model.pt
      pyserve serve model.pt
    """


def main() -> None:
    """Run the command line; exit codes: 0 fine, 2 bad usage or configuration, 1 anything else."""
    group(prog_name="pyserve")
