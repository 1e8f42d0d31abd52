"""No test of an endpoint may leave the machine."""

from tests.autointerp.conftest import _loopback_only

__all__ = ["_loopback_only"]
