"""All that a run can be told: pydantic models with defaults and help texts, and presets."""
