"""The merged catalog: names, lists, pages, template routing and argument validators."""

from gateway.catalog.merge import (
    Catalog,
    CatalogBuilder,
    Conflict,
    Entry,
    Owner,
    Problem,
    Withheld,
    changed,
)
from gateway.catalog.names import NameBook, NamePolicy
from gateway.catalog.validators import ValidatorCache
from registry.definition import definition_hash

__all__ = [
    "Catalog",
    "CatalogBuilder",
    "Conflict",
    "Entry",
    "NameBook",
    "NamePolicy",
    "Owner",
    "Problem",
    "ValidatorCache",
    "Withheld",
    "changed",
    "definition_hash",
]
