"""Families of models and text on which the verdict is validated; see docs/validation.md."""
