"""Contract tests for packages that add their own sources; call them from your test suite."""
