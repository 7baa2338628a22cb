"""`local_runner.py config`: every setting with its value, meaning, range and origin."""

from typing import TYPE_CHECKING

from errors import mask_secrets
from pipeline.cli.options import Assignments, OutputDir, Preset, resolve_options

if TYPE_CHECKING:
    from pipeline.settings.resolution import Resolved


def config(
    preset: Preset = "default",
    assignments: Assignments = None,
    output_dir: OutputDir = None,
) -> None:
    """Show all settings as YAML: value, origin, meaning, range.

    Example: python local_runner.py config --preset classic --set train.batch_size=128
    """
    print("\n".join(settings_lines(resolve_options(preset, assignments, output_dir))))


def settings_lines(resolved: "Resolved") -> list[str]:
    """Every setting as YAML, with meaning and range in a comment before it and its origin after."""
    import yaml

    from pipeline.settings.resolution import allowed

    lines: list[str] = []
    open_path: list[str] = []
    for key, value, origin, field in resolved.rows():
        *path, name = key.split(".")
        for depth, part in enumerate(path):
            if open_path[: depth + 1] != path[: depth + 1]:
                lines.append(f"{'  ' * depth}{part}:")
                open_path = path[: depth + 1]
        open_path = path
        indent = "  " * len(path)
        text = yaml.safe_dump(
            list(value) if isinstance(value, tuple) else value, default_flow_style=True, width=10**6
        )
        shown = mask_secrets(text.removesuffix("...\n").strip())
        lines.append(f"{indent}# {field.description}; {allowed(field)}")
        lines.append(f"{indent}{name}: {shown}  # {origin}")
    return lines
