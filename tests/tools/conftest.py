"""The annotators' runs, for the tools that read them."""

from tests.autointerp.conftest import _loopback_only, contexts

__all__ = ["_loopback_only", "contexts"]
