"""Contracts that sources must keep, for those of third parties too; call them from your tests."""
