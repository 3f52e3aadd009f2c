# Generated from chapters/; edit the chapters, not this file.
"""What makes a run repeatable: settings, folders, checkpoints, reports, recipes."""
