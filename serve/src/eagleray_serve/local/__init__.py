"""One machine: `eagleray up`, `down` and what they remember."""
