"""Fakes for tests of code that drives groups: a group, its connections, and a provider."""
