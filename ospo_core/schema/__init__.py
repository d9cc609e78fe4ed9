"""The data contract: categories, stages and one versioned pyarrow schema per table."""

from ospo_core.schema.enums import (
    ALL,
    CHILD,
    PARENT,
    PERTURBATIONS,
    Category,
    PerturbationKind,
    Side,
    SubCategory,
    category_of,
)
from ospo_core.schema.tables import SCHEMA_VERSION, TABLES, StageName, table_from_rows

__all__ = [
    "ALL",
    "CHILD",
    "PARENT",
    "PERTURBATIONS",
    "SCHEMA_VERSION",
    "TABLES",
    "Category",
    "PerturbationKind",
    "Side",
    "StageName",
    "SubCategory",
    "category_of",
    "table_from_rows",
]
