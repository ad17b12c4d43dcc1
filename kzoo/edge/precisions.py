"""The table of precisions, under the name that the edge path and its users know."""

from kzoo.precisions import LINEAR, PRECISIONS, STATIC_POLICIES, Precision, StaticPolicy

__all__ = ["LINEAR", "PRECISIONS", "STATIC_POLICIES", "Precision", "StaticPolicy"]
