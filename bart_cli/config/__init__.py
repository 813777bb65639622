"""The settings: pydantic models with defaults, ranges and help texts, and presets."""
