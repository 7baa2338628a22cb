"""Errors about versions."""

from errors import UserError


class RegistryError(UserError):
    """A version cannot be found, made or removed."""


class RolledBackError(RegistryError):
    """A model that was rolled back from is not pushed again unless somebody asks for it."""
