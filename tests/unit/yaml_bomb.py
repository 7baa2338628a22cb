"""YAML that stands for much more than it says."""


def bomb(levels: int) -> str:
    """A mapping of some 40 bytes a level, whose last value stands for 9**levels texts."""
    lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(["a0: &a0 [" + ", ".join("x" * 9) + "]", *lines]) + "\n"
