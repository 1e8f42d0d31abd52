"""Activations. This file only names their file format; it imports nothing."""

FORMAT = "diffscope-activations"
VERSION = 2
