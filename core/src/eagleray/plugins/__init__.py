"""Discovery of plugins, and the catalogue of what they offer."""
