"""Configuration schema, presets and the error type that users see."""
