"""For plugin authors and for tests: a complete small framework, a host in memory, and tiny datasets."""
