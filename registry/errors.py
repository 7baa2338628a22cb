"""Errors about versions."""


class RegistryError(RuntimeError):
    """A version cannot be found, made or removed."""


class RolledBackError(RegistryError):
    """A model that was rolled back from is not pushed again unless somebody asks for it."""
