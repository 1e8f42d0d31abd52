"""Activations; here only what names their files, without imports."""

FORMAT = "diffscope-activations"
VERSION = 2
