"""Configuration and contracts of the stages that are C alone, one module per stem."""
