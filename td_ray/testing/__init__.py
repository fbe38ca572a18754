"""Contracts that sources must keep, for those of third parties too."""
