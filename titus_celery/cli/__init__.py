"""The `titus` command. Nothing is imported here, so that asking for help stays quick."""
