"""The database's schema, version by version. `hourbook.database` runs it; nothing else does."""
