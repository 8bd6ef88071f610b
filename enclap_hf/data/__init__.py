"""Caption data: tables, folders and `datasets` of recordings with captions, and their prepared features."""
